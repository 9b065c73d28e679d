"""From the address of a package to the frames on disk."""

import bz2
import hashlib
import io
import tarfile

import pytest

from niripipe import datasets
from niripipe.errors import InputError, StorageError

from .server import fits_bytes, send, visible

OPTIONS = {"timeout": 10.0, "retries": 0}


def packed() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(3):
            body = bz2.compress(fits_bytes(number))
            member = tarfile.TarInfo(f"night/playdata/N20160102S027{number}.fits.bz2")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return buffer.getvalue()


@pytest.fixture
def night(archive) -> datasets.DataSet:
    return datasets.DataSet(
        name="night",
        title="A night",
        files=[datasets.FileGroup(role="target", frames=["N20160102S0270-272"])],
        package=datasets.Package(
            name="night-v1.tar", url=f"{archive.url}/night-v1.tar", data_folder="night/playdata"
        ),
    )


def with_checksum(night, body):
    package = night.package.model_copy(update={"checksum": f"sha256:{hashlib.sha256(body).hexdigest()}"})
    return night.model_copy(update={"package": package})


def test_a_package_is_downloaded_unpacked_and_holds_the_frames(archive, night, tmp_path):
    archive.on("/night-v1.tar", send(packed()))
    path = datasets.download_package(night, tmp_path, **OPTIONS)
    files = datasets.unpack(path, tmp_path)
    folder = tmp_path / night.package.data_folder
    assert files == [folder / name for name in night.file_names()]
    assert files[2].read_bytes() == fits_bytes(2)


def test_a_package_that_is_there_is_checked_and_not_fetched_again(archive, night, tmp_path):
    archive.on("/night-v1.tar", send(packed()))
    path = datasets.download_package(night, tmp_path, **OPTIONS)
    archive.requests.clear()
    assert datasets.download_package(night, tmp_path, **OPTIONS) == path
    assert archive.requests == []
    path.write_bytes(packed() + bytes(512))
    with pytest.raises(StorageError, match="has changed"):
        datasets.download_package(night, tmp_path, **OPTIONS)


def test_a_package_with_a_wrong_checksum_is_refused_and_not_kept(archive, night, tmp_path):
    archive.on("/night-v1.tar", send(packed()))
    with pytest.raises(StorageError, match="checksum is wrong"):
        datasets.download_package(with_checksum(night, b"other"), tmp_path, **OPTIONS)
    assert visible(tmp_path) == []
    assert datasets.download_package(with_checksum(night, packed()), tmp_path, **OPTIONS).is_file()


def test_a_page_instead_of_a_package_is_refused(archive, night, tmp_path):
    archive.on("/night-v1.tar", send(b"<!DOCTYPE html>" + b" " * 5000))
    with pytest.raises(StorageError, match=r"something else than the file.*DOCTYPE"):
        datasets.download_package(night, tmp_path, **OPTIONS)
    assert visible(tmp_path) == []


def test_progress_of_a_package_counts_mebibytes(archive, night, tmp_path):
    class Recorder:
        steps, closed = [], 0

        def update(self, step, done, total):
            self.steps.append((step, done, total))

        def close(self):
            self.closed += 1

    body = packed() + bytes(3 << 20)
    archive.on("/night-v1.tar", send(body))
    progress = Recorder()
    datasets.download_package(night, tmp_path, progress=progress, **OPTIONS)
    assert progress.steps[-1] == ("night-v1.tar", 3, 3)
    assert progress.closed == 1


def test_a_data_set_without_package_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"Use download\(\)"):
        datasets.download_package("niri_static_bpm", tmp_path)
