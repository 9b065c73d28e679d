import bz2
import gzip
import io
import tarfile

import pytest

from niripipe.datasets import unpack
from niripipe.errors import DataError, InputError, StorageError

from .server import fits_bytes


def tar(path, *members, mode="w", end=True):
    """Write an archive of (name, body) or TarInfo members."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                info.mode = 0o777
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2"])
def test_members_land_in_their_folders_decompressed(tmp_path, mode):
    body = fits_bytes()
    folder = special("a", tarfile.DIRTYPE)
    members = [("a/one.fits.bz2", bz2.compress(body)), ("./a/b/two.fits.gz", gzip.compress(body))]
    out = tmp_path / "out"
    files = unpack(tar(tmp_path / "x", folder, *members, ("three.txt", b"3"), mode=mode), out)
    assert files == [out / "a/one.fits", out / "a/b/two.fits", out / "three.txt"]
    assert files[0].read_bytes() == files[1].read_bytes() == body
    assert files[2].stat().st_mode & 0o111 == 0


def test_members_can_be_left_compressed(tmp_path):
    body = bz2.compress(fits_bytes())
    files = unpack(tar(tmp_path / "x.tar", ("one.fits.bz2", body)), tmp_path / "out", decompress=False)
    assert files == [tmp_path / "out" / "one.fits.bz2"]
    assert files[0].read_bytes() == body


@pytest.mark.parametrize(("suffix", "compress"), [(".bz2", bz2.compress), (".gz", gzip.compress)])
def test_one_compressed_file_is_decompressed_by_content(tmp_path, suffix, compress):
    path = tmp_path / f"one.fits{suffix}"
    path.write_bytes(compress(fits_bytes()))
    assert unpack(path, tmp_path) == [tmp_path / "one.fits"]
    assert (tmp_path / "one.fits").read_bytes() == fits_bytes()
    twice = tmp_path / "two.bz2.gz"
    twice.write_bytes(gzip.compress(bz2.compress(b"text")))
    assert unpack(twice, tmp_path) == [tmp_path / "two.bz2"]
    other = tmp_path / "one"
    other.write_bytes(compress(b"text"))
    assert unpack(other, tmp_path) == [tmp_path / "one.unpacked"]


@pytest.mark.parametrize(
    "member",
    [
        ("/etc/evil", b"x"),
        ("../evil", b"x"),
        ("a/../../evil", b"x"),
        ("a\\..\\evil", b"x"),
        ("C:evil", b"x"),
        ("con.txt", b"x"),
        ("a\nb", b"x"),
        ("x" * 250, b"x"),
        ("", b"x"),
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.LNKTYPE, "good.txt"),
        special("device", tarfile.CHRTYPE),
        special("device", tarfile.BLKTYPE),
        special("pipe", tarfile.FIFOTYPE),
        special("../folder", tarfile.DIRTYPE),
        special("sparse", tarfile.GNUTYPE_SPARSE),
        ("good.txt", b"again"),
        ("GOOD.txt", b"again"),
        ("good.txt.bz2", bz2.compress(b"again")),
    ],
    ids=lambda member: getattr(member, "name", None) or str(member[0])[:12],
)
def test_a_hostile_member_makes_the_whole_archive_refused_before_anything_is_written(tmp_path, member):
    path = tar(tmp_path / "x.tar", ("good.txt", b"good"), member)
    with pytest.raises(DataError, match=r"refused|damaged"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.tar"]


def test_a_folder_that_links_elsewhere_is_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    path = tar(tmp_path / "x.tar", ("a/b/evil.txt", b"x"))
    with pytest.raises(DataError, match="leads elsewhere"):
        unpack(path, tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_bomb_is_refused_by_what_it_declares(tmp_path):
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb") as stream:
        member = tarfile.TarInfo("bomb.fits")
        member.size = 1 << 50
        stream.write(member.tobuf())
    with pytest.raises(DataError, match="fill the disk"):
        unpack(path, tmp_path / "out")


def test_a_bomb_is_refused_by_what_comes_out(tmp_path):
    bomb = bz2.compress(bytes(20 << 20))
    for path in (
        tar(tmp_path / "x.tar", ("a.txt", b"1"), ("bomb.fits.bz2", bomb)),
        tmp_path / "bomb.fits.bz2",
    ):
        if not path.exists():
            path.write_bytes(bomb)
        with pytest.raises(DataError, match="fill the disk"):
            unpack(path, tmp_path / "out", max_bytes=1 << 20)
        assert not (tmp_path / "out").exists()


def test_too_many_members_are_refused(tmp_path):
    path = tar(tmp_path / "x.tar", *((f"{number}.txt", b"") for number in range(30)))
    with pytest.raises(DataError, match="too many"):
        unpack(path, tmp_path / "out", max_files=20)


def test_an_oversized_header_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "x.tar.bz2"
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    with bz2.open(path, "wb") as stream:
        stream.write(member.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(DataError, match="oversized header"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("keep", [600, 1024, 2000, 2048, 2560, 3072])
def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path, keep):
    path = tar(tmp_path / "x.tar", ("a.txt", b"x" * 512), ("b.txt", b"y" * 512), ("c.txt", b"z" * 512))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="damaged"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_with_a_broken_header_inside_is_refused(tmp_path):
    path = tar(tmp_path / "x.tar", ("a.txt", b"x" * 512), ("b.txt", b"y" * 512))
    content = bytearray(path.read_bytes())
    content[1024 + 20] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        unpack(path, tmp_path / "out")


def test_a_member_that_is_damaged_inside_leaves_nothing_behind(tmp_path):
    body = bz2.compress(fits_bytes(size=256))
    damaged = body[: len(body) // 2] + bytes(20) + body[len(body) // 2 + 20 :]
    path = tar(tmp_path / "x.tar", ("a/one.fits.bz2", body), ("b/two.fits.bz2", damaged))
    with pytest.raises(DataError, match="damaged"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_truncated_compressed_file_is_refused(tmp_path):
    path = tmp_path / "one.fits.bz2"
    path.write_bytes(bz2.compress(fits_bytes(size=256))[:-100])
    with pytest.raises(DataError, match="damaged"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_that_is_not_compressed_as_named_is_refused(tmp_path):
    with pytest.raises(DataError, match="not compressed as its name says"):
        unpack(tar(tmp_path / "x.tar", ("one.fits.bz2", fits_bytes())), tmp_path / "out")


def test_files_that_are_there_are_kept_unless_overwriting_is_asked_for(tmp_path):
    path = tar(tmp_path / "x.tar", ("new.txt", b"new"), ("old.txt", b"new"))
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.txt").write_bytes(b"old")
    with pytest.raises(InputError, match="there already"):
        unpack(path, out)
    assert [file.name for file in out.iterdir()] == ["old.txt"]
    unpack(path, out, overwrite=True)
    assert (out / "old.txt").read_bytes() == b"new"


@pytest.mark.parametrize("body", [b"<html>", b"", fits_bytes()])
def test_what_is_no_archive_is_refused(tmp_path, body):
    path = tmp_path / "x.tar"
    path.write_bytes(body)
    with pytest.raises(DataError, match="neither a tar file"):
        unpack(path, tmp_path / "out")


def test_an_archive_without_files_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no files"):
        unpack(tar(tmp_path / "x.tar", special("a", tarfile.DIRTYPE)), tmp_path / "out")


def test_a_missing_archive_and_an_unusable_folder_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        unpack(tmp_path / "none.tar", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        unpack(tar(tmp_path / "x.tar", ("a.txt", b"x")), tmp_path / "file")


def test_a_failure_replaces_nothing(tmp_path):
    damaged = bz2.compress(fits_bytes(size=256))[:-100]
    path = tar(tmp_path / "x.tar", ("old.txt", b"new"), ("one.fits.bz2", damaged))
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.txt").write_bytes(b"old")
    with pytest.raises(DataError, match="damaged"):
        unpack(path, out, overwrite=True)
    assert [file.name for file in out.iterdir()] == ["old.txt"]
    assert (out / "old.txt").read_bytes() == b"old"


def test_an_archive_that_declares_too_much_is_refused_before_anything_is_written(tmp_path):
    path = tar(tmp_path / "x.tar", ("a.txt", bytes(1000)), ("b.txt", bytes(1000)))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="fill the disk"):
        unpack(path, tmp_path / "file", max_bytes=1500)
    assert len(unpack(path, tmp_path / "out", max_bytes=2000)) == 2
