import bz2
import hashlib
import threading
import time

import pytest

from niripipe import datasets
from niripipe.errors import InputError, ParameterError, StorageError

from .server import endless, fits_bytes, send, serving, silent, visible

NAME = "N20160102S0270.fits"
BODY = fits_bytes()
FILE = f"/file/{NAME}"


class Recorder:
    def __init__(self):
        self.steps, self.closed = [], 0

    def update(self, step, done, total):
        self.steps.append((step, done, total))

    def close(self):
        self.closed += 1


def test_frames_arrive_in_the_order_asked_for_with_a_record_of_checksums(archive, options, tmp_path):
    names = ["N20160102S0271.fits", NAME]
    for seed, name in enumerate(names):
        archive.hold(name, fits_bytes(seed))
    progress = Recorder()
    paths = datasets.download(names, tmp_path / "new" / "folder", progress=progress, **options)
    assert [path.name for path in paths] == names
    assert [path.read_bytes() for path in paths] == [fits_bytes(0), fits_bytes(1)]
    lines = (paths[0].parent / "SHA256SUMS").read_text().splitlines()
    assert sorted(lines) == sorted(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in paths
    )
    assert progress.steps == [("download", 1, 2), ("download", 2, 2)]
    assert progress.closed == 1
    assert visible(paths[0].parent) == sorted(names)


def test_progress_is_that_of_a_reduction_true_for_text_none_for_nothing(archive, options, tmp_path, capsys):
    archive.hold(NAME, BODY)
    for progress in (True, False, None):
        datasets.download(NAME, tmp_path, progress=progress, overwrite=True, **options)
    assert capsys.readouterr().out == ""


def test_a_data_set_is_downloaded_by_name_and_role(archive, options, tmp_path):
    for number in range(275, 280):
        archive.hold(f"N20160102S0{number}.fits", BODY)
    paths = datasets.download("niriimg_tutorial", tmp_path, roles=["sky"], **options)
    assert [path.name for path in paths] == datasets.get("niriimg_tutorial").file_names("sky")


def test_what_a_search_has_found_is_downloaded_and_checked_without_asking_again(archive, options, tmp_path):
    archive.on(FILE, send(BODY))
    good = datasets.ArchiveFile(name=NAME, data_md5=hashlib.md5(BODY).hexdigest(), data_size=len(BODY))
    assert datasets.download(datasets.ArchiveFiles([good]), tmp_path / "a", **options)[0].read_bytes() == BODY
    assert [path for path, _ in archive.requests] == [FILE]
    with pytest.raises(StorageError, match="checksum is wrong"):
        datasets.download(good.model_copy(update={"data_md5": "0" * 32}), tmp_path / "b", **options)


def test_a_frame_that_is_there_is_not_fetched_again_and_needs_no_network(archive, options, tmp_path):
    archive.hold(NAME, BODY)
    datasets.download(NAME, tmp_path, **options)
    archive.requests.clear()
    assert datasets.download(NAME, tmp_path, **options) == [tmp_path / NAME]
    assert archive.requests == []


def test_a_frame_put_there_by_hand_is_checked_against_the_archive_compressed_or_not(
    archive, options, tmp_path
):
    archive.hold(NAME, BODY)
    path = tmp_path / f"{NAME}.bz2"
    path.write_bytes(bz2.compress(BODY))
    assert datasets.download(NAME, tmp_path, **options) == [path]
    assert archive.asked(FILE) == []
    (tmp_path / "SHA256SUMS").unlink()
    path.write_bytes(bz2.compress(fits_bytes(9)))
    with pytest.raises(StorageError, match="checksum is wrong"):
        datasets.download(NAME, tmp_path, **options)


def test_a_frame_that_changed_on_disk_is_an_error_and_overwrite_replaces_it(archive, options, tmp_path):
    archive.hold(NAME, BODY)
    (path,) = datasets.download(NAME, tmp_path, **options)
    path.write_bytes(fits_bytes(5))
    with pytest.raises(StorageError, match="has changed") as caught:
        datasets.download(NAME, tmp_path, **options)
    assert "overwrite=True" in caught.value.remedy
    datasets.download(NAME, tmp_path, overwrite=True, **options)
    assert path.read_bytes() == BODY
    assert datasets.download(NAME, tmp_path, **options) == [path]


def test_overwriting_leaves_a_frame_in_one_compression_only(archive, options, tmp_path):
    archive.hold(NAME, BODY)
    (tmp_path / f"{NAME}.bz2").write_bytes(bz2.compress(fits_bytes(9)))
    datasets.download(NAME, tmp_path, overwrite=True, **options)
    assert visible(tmp_path) == [NAME]


def test_a_server_that_delivers_compressed_files_is_understood_and_checked(archive, options, tmp_path):
    archive.list(NAME, BODY)
    archive.on(FILE, send(bz2.compress(BODY)))
    assert datasets.download(NAME, tmp_path, **options) == [tmp_path / f"{NAME}.bz2"]
    archive.list(NAME, BODY, file_size=None, file_md5=None)
    assert datasets.download(NAME, tmp_path, overwrite=True, **options) == [tmp_path / f"{NAME}.bz2"]
    archive.list(NAME, BODY, file_size=None, file_md5=None, data_md5="0" * 32)
    with pytest.raises(StorageError, match="checksum is wrong"):
        datasets.download(NAME, tmp_path, overwrite=True, **options)
    archive.list(NAME, BODY, file_md5="0" * 32)
    with pytest.raises(StorageError, match="checksum is wrong"):
        datasets.download(NAME, tmp_path, overwrite=True, **options)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_checksums_given_by_the_caller_are_of_the_uncompressed_frame(archive, options, tmp_path, algorithm):
    archive.on(FILE, send(bz2.compress(BODY)))
    sums = {NAME: f"{algorithm}:{hashlib.new(algorithm, BODY).hexdigest()}"}
    assert len(datasets.download(NAME, tmp_path, checksums=sums, **options)) == 1
    wrong = {NAME: f"{algorithm}:{hashlib.new(algorithm, b'').hexdigest()}"}
    with pytest.raises(StorageError, match="checksum is wrong"):
        datasets.download(NAME, tmp_path / "new", checksums=wrong, **options)
    assert visible(tmp_path / "new") == []
    with pytest.raises(StorageError, match="checksum is wrong"):
        datasets.download(NAME, tmp_path, checksums=wrong, **options)


def test_a_checksum_in_the_catalogue_needs_no_request_for_one(archive, options, tmp_path):
    archive.on(FILE, send(BODY))
    description = tmp_path / "mine.toml"
    sha256 = hashlib.sha256(BODY).hexdigest()
    description.write_text(
        f'name="mine"\ntitle="Mine"\nchecksums={{"{NAME}"="sha256:{sha256}"}}\n'
        f'[[files]]\nrole="target"\nframes=["{NAME}"]\n'
    )
    datasets.download(datasets.read(description), tmp_path / "data", **options)
    assert [path for path, _ in archive.requests] == [FILE]


@pytest.mark.parametrize(
    ("reply", "problem", "found"),
    [
        (send(fits_bytes(1)), "checksum is wrong", "md5:"),
        (send(b"<!DOCTYPE html><html><body>Please log in"), "another size", "bytes"),
        (send(BODY + b"x"), "another size", f"{len(BODY) + 1} bytes"),
        (endless(BODY), "does not stop sending", f"over {len(BODY)} bytes"),
        (send(BODY, Content_Encoding="gzip"), "encoding", "gzip"),
        (send(status=418), "cannot deliver", "418"),
    ],
)
def test_a_wrong_file_is_an_error_at_once_and_leaves_nothing(
    archive, options, tmp_path, reply, problem, found
):
    archive.list(NAME, BODY)
    archive.on(FILE, reply)
    with pytest.raises(StorageError, match=problem) as caught:
        datasets.download(NAME, tmp_path, **options)
    assert found in caught.value.found
    assert caught.value.item == archive.url + FILE
    assert visible(tmp_path) == []
    assert len(archive.asked(FILE)) == 1


@pytest.mark.parametrize(
    "body", [b"<!DOCTYPE html><html>Please log in</html>" * 100, b"<html>", b"", b"\x89PNG\r\n", b"SIMPLE= T"]
)
def test_a_page_instead_of_data_is_recognised_even_without_checksums(archive, options, tmp_path, body):
    archive.on(FILE, send(body, Content_Type="application/fits"))
    with pytest.raises(StorageError, match="something else than the file") as caught:
        datasets.download(NAME, tmp_path, checksums="none", **options)
    assert caught.value.item == archive.url + FILE
    assert caught.value.found == (
        repr(" ".join(body[:200].decode("latin-1").split())[:80]) if body else "nothing"
    )
    assert visible(tmp_path) == []


def test_an_endless_page_is_refused_at_its_beginning(archive, options, tmp_path):
    archive.on(FILE, endless(b"<html>"))
    began = time.monotonic()
    with pytest.raises(StorageError, match="something else"):
        datasets.download(NAME, tmp_path, checksums="none", **options)
    assert time.monotonic() - began < 8


def test_without_a_known_size_the_limit_holds(archive, options, tmp_path):
    archive.on(FILE, endless(BODY))
    with pytest.raises(StorageError, match="does not stop sending"):
        datasets.download(NAME, tmp_path, checksums="none", max_bytes=1 << 20, **options)
    archive.on(FILE, send(BODY))
    with pytest.raises(StorageError, match="too large"):
        datasets.download(NAME, tmp_path, checksums="none", max_bytes=1000, **options)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("status", [403, 401])
def test_proprietary_data_are_refused_with_the_way_in(archive, options, tmp_path, status):
    archive.list(NAME, BODY)
    archive.on(FILE, send(b"Not enough privileges", status=status))
    with pytest.raises(StorageError, match="proprietary") as caught:
        datasets.download(NAME, tmp_path, **options)
    assert "session=" in caught.value.remedy
    with pytest.raises(StorageError, match="expired"):
        datasets.download(NAME, tmp_path, session="secret", **options)
    assert archive.asked(FILE)[-1]["Cookie"] == "gemini_archive_session=secret"
    assert visible(tmp_path) == []


@pytest.mark.parametrize("checksums", ["archive", "none"])
def test_a_file_the_archive_does_not_have_is_an_input_error(archive, options, tmp_path, checksums):
    archive.on(f"/jsonfilelist/canonical/filename={NAME}", send(b"[]"))
    with pytest.raises(InputError, match="no such file"):
        datasets.download(NAME, tmp_path, checksums=checksums, **options)


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_fault_that_passes_is_passed_over(archive, options, tmp_path, status):
    archive.list(NAME, BODY)
    archive.on(FILE, send(b"<html>", status=status), send(BODY))
    assert datasets.download(NAME, tmp_path, **options)[0].read_bytes() == BODY


def test_a_fault_that_stays_is_reported_with_the_number_of_attempts(archive, options, tmp_path):
    archive.list(NAME, BODY)
    archive.on(FILE, send(status=503))
    with pytest.raises(datasets.ServerUnreachable, match=r"503.*2 attempts"):
        datasets.download(NAME, tmp_path, **options)
    assert len(archive.asked(FILE)) == 2
    assert visible(tmp_path) == []


def test_the_server_may_ask_for_a_longer_pause(archive, options, tmp_path):
    archive.list(NAME, BODY)
    archive.on(FILE, send(status=503, Retry_After="1"), send(BODY))
    began = time.monotonic()
    datasets.download(NAME, tmp_path, **options)
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize(
    "reply", [silent(20), endless(b"SIMPLE  =", pause=0.1, block=b" ")], ids=["silent", "trickling"]
)
def test_a_slow_server_is_given_up(archive, options, tmp_path, reply):
    archive.on(FILE, reply)
    began = time.monotonic()
    with pytest.raises(datasets.ServerUnreachable, match=r"timed out|stalled"):
        datasets.download(NAME, tmp_path, checksums="none", **{**options, "timeout": 0.4, "retries": 0})
    assert time.monotonic() - began < 8
    assert visible(tmp_path) == []


def test_a_server_that_is_not_there_is_named(options, tmp_path):
    options["base_url"] = "http://127.0.0.1:9"
    with pytest.raises(datasets.ServerUnreachable, match=r"no connection.*refused"):
        datasets.download([NAME, "N20160102S0271.fits"], tmp_path, parallel=1, **options)


def test_a_cut_transfer_is_resumed_where_it_ended(archive, options, tmp_path):
    archive.list(NAME, BODY)
    whole = {"ETag": '"v1"', "ranges": True}
    archive.on(FILE, send(BODY, cut=7000, **whole), send(BODY, **whole))
    assert datasets.download(NAME, tmp_path, **options)[0].read_bytes() == BODY
    assert archive.asked(FILE)[1]["Range"] == "bytes=7000-"
    assert archive.asked(FILE)[1]["If-Range"] == '"v1"'


def test_a_later_call_resumes_what_an_earlier_one_left(archive, options, tmp_path):
    archive.list(NAME, BODY)
    archive.on(FILE, send(BODY, cut=7000, ETag='"v1"'))
    with pytest.raises(datasets.ServerUnreachable, match="7000 of"):
        datasets.download(NAME, tmp_path, **{**options, "retries": 0})
    assert visible(tmp_path) == [f".{NAME}.part", f".{NAME}.part.json"]
    archive.on(FILE, send(BODY, ETag='"v1"', ranges=True))
    assert datasets.download(NAME, tmp_path, **options)[0].read_bytes() == BODY
    assert archive.asked(FILE)[-1]["Range"] == "bytes=7000-"
    assert visible(tmp_path) == [NAME]


def test_a_part_that_was_tampered_with_is_not_resumed(archive, options, tmp_path):
    archive.list(NAME, BODY)
    archive.on(FILE, send(BODY, cut=7000, ETag='"v1"'))
    with pytest.raises(datasets.ServerUnreachable):
        datasets.download(NAME, tmp_path, **{**options, "retries": 0})
    (tmp_path / f".{NAME}.part").write_bytes(bytes(7000))
    archive.on(FILE, send(BODY, ETag='"v1"', ranges=True))
    assert datasets.download(NAME, tmp_path, **options)[0].read_bytes() == BODY
    assert "Range" not in archive.asked(FILE)[-1]


def test_a_file_that_changed_in_between_is_fetched_from_its_beginning(archive, options, tmp_path):
    archive.list(NAME, BODY)
    archive.on(FILE, send(fits_bytes(3), cut=7000, ETag='"v1"'), send(BODY, ETag='"v2"', ranges=True))
    assert datasets.download(NAME, tmp_path, **options)[0].read_bytes() == BODY


def test_parts_of_two_versions_under_one_tag_are_found_out_and_fetched_anew(archive, options, tmp_path):
    archive.list(NAME, BODY)
    same = {"ETag": '"v1"', "ranges": True}
    archive.on(FILE, send(fits_bytes(3), cut=7000, **same), send(BODY, **same))
    assert datasets.download(NAME, tmp_path, **options)[0].read_bytes() == BODY
    assert ["Range" in headers for headers in archive.asked(FILE)] == [False, True, False]


def test_without_a_tag_a_cut_transfer_begins_again(archive, options, tmp_path):
    archive.list(NAME, BODY)
    archive.on(FILE, send(BODY, cut=7000), send(BODY))
    assert datasets.download(NAME, tmp_path, **options)[0].read_bytes() == BODY
    assert "Range" not in archive.asked(FILE)[1]


@pytest.mark.parametrize(
    "reply",
    [
        send(BODY[100:], status=206, Content_Range=f"bytes 100-{len(BODY) - 1}/{len(BODY)}"),
        send(BODY[7000:], status=206, Content_Range="bytes 7000-9999/10000"),
        send(BODY[7000:], status=206),
        send(status=416),
    ],
)
def test_a_wrong_part_is_not_appended(archive, options, tmp_path, reply):
    archive.list(NAME, BODY)
    archive.on(FILE, send(BODY, cut=7000, ETag='"v1"'), reply, send(BODY))
    path = datasets.download(NAME, tmp_path, **{**options, "retries": 2})[0]
    assert path.read_bytes() == BODY
    assert "Range" not in archive.asked(FILE)[2]


def test_a_redirection_is_followed_without_the_cookie_to_another_server(archive, options, tmp_path):
    archive.list(NAME, BODY)
    with serving() as other:
        other.on("/moved", send(BODY))
        archive.on(FILE, send(status=302, Location=f"{other.url}/moved"))
        datasets.download(NAME, tmp_path, session="secret", **options)
        assert "Cookie" not in other.asked("/moved")[0]
    archive.on(FILE, send(status=302, Location="/elsewhere"))
    archive.on("/elsewhere", send(BODY))
    datasets.download(NAME, tmp_path, session="secret", overwrite=True, **options)
    assert archive.asked("/elsewhere")[0]["Cookie"].endswith("secret")


def test_an_endless_redirection_does_not_hold_up(archive, options, tmp_path):
    def reply(request):
        request.send_response(302)
        request.send_header("Location", "/elsewhere")
        request.end_headers()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            request.wfile.write(bytes(65536))

    archive.list(NAME, BODY)
    archive.on(FILE, reply)
    archive.on("/elsewhere", send(BODY))
    began = time.monotonic()
    datasets.download(NAME, tmp_path, **options)
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("where", ["ftp://127.0.0.1/x", "file:///etc/passwd", FILE])
def test_a_redirection_to_another_scheme_or_in_a_circle_is_refused(archive, options, tmp_path, where):
    archive.list(NAME, BODY)
    archive.on(FILE, send(status=302, Location=where))
    with pytest.raises(StorageError, match=r"not followed|cannot deliver"):
        datasets.download(NAME, tmp_path, **options)
    assert visible(tmp_path) == []
    assert len(archive.asked(FILE)) < 10


def test_a_proxy_is_used_if_and_only_if_it_is_given(archive, options, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "*")
    archive.list(NAME, BODY)
    archive.on(FILE, send(BODY))
    datasets.download(NAME, tmp_path, **options)
    archive.on("http://archive.invalid/file/" + NAME, send(BODY))
    options |= {"base_url": "http://archive.invalid", "proxy": archive.url}
    datasets.download(NAME, tmp_path, overwrite=True, checksums="none", **options)
    assert archive.requests[-1][1]["Host"] == "archive.invalid"


def test_one_missing_file_does_not_keep_the_others_from_arriving(archive, options, tmp_path):
    names = [f"N20160102S0{number}.fits" for number in range(270, 275)]
    for name in names:
        archive.hold(name, BODY)
    archive.on(f"/file/{names[1]}", send(status=403))
    progress = Recorder()
    with pytest.raises(StorageError, match=r"1 of 5 files did not arrive.*proprietary") as caught:
        datasets.download(names, tmp_path, progress=progress, **options)
    assert caught.value.item == names[1]
    assert visible(tmp_path) == [name for name in names if name != names[1]]
    assert progress.closed == 1


def test_when_the_server_is_gone_the_rest_is_not_tried(archive, options, tmp_path):
    names = [f"N20160102S0{number}.fits" for number in range(270, 300)]
    for name in names:
        archive.on(f"/file/{name}", send(status=503))
    with pytest.raises(datasets.ServerUnreachable, match="of 30 files"):
        datasets.download(names, tmp_path, checksums="none", parallel=1, **options)
    assert len(archive.requests) <= 4


def test_at_most_two_files_are_fetched_at_a_time_by_default(archive, options, tmp_path):
    def slowly(request):
        time.sleep(0.05)
        send(BODY)(request)

    names = [f"N20160102S0{number}.fits" for number in range(270, 276)]
    for name in names:
        archive.on(f"/file/{name}", slowly)
    datasets.download(names, tmp_path, checksums="none", **options)
    assert archive.most_active == 2


def test_two_threads_may_fetch_the_same_files_into_the_same_folder(archive, options, tmp_path):
    names = [f"N20160102S0{number}.fits" for number in range(270, 276)]
    for seed, name in enumerate(names):
        archive.hold(name, fits_bytes(seed))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(datasets.download(names, tmp_path, **options)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[tmp_path / name for name in names]] * 4
    assert [path.read_bytes() for path in results[0]] == [fits_bytes(seed) for seed in range(6)]
    assert visible(tmp_path) == names


def test_an_interrupted_download_keeps_no_half_file_under_its_name(archive, options, tmp_path):
    class Interrupted(Recorder):
        def update(self, step, done, total):
            raise KeyboardInterrupt

    archive.hold(NAME, BODY)
    archive.on("/file/N20160102S0271.fits", endless(BODY, pause=0.05, block=bytes(1000)))
    with pytest.raises(KeyboardInterrupt):
        datasets.download(
            [NAME, "N20160102S0271.fits"], tmp_path, checksums="none", progress=Interrupted(), **options
        )
    assert visible(tmp_path) == [NAME]


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_asked(archive, options, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        datasets.download(NAME, tmp_path / "file" / "folder", **options)
    assert archive.requests == []


def test_a_full_disk_is_reported_and_leaves_nothing(archive, options, tmp_path):
    resource = pytest.importorskip("resource")
    archive.hold(NAME, BODY)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"cannot be written.*File too large"):
            datasets.download(NAME, tmp_path, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert visible(tmp_path) == []


@pytest.mark.parametrize("parallel", [0, 9])
def test_the_number_of_files_at_a_time_is_bounded(tmp_path, parallel):
    with pytest.raises(ParameterError, match="parallel"):
        datasets.download(NAME, tmp_path, parallel=parallel)


def test_unknown_names_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(InputError, match="no such data set"):
        datasets.download("niri_tutorial", tmp_path / "new")
    with pytest.raises(InputError, match="only data sets have roles"):
        datasets.download(NAME, tmp_path / "new", roles=["sky"])
    with pytest.raises(ParameterError, match="checksums"):
        datasets.download(NAME, tmp_path / "new", checksums="archives")
    with pytest.raises(InputError, match="cannot be read"):
        datasets.download(NAME, tmp_path / "new", checksums={NAME: "12"})
    assert not (tmp_path / "new").exists()


def test_a_static_mask_comes_from_the_cache_the_second_time(archive, options, tmp_path):
    name = "bpm_20010317_niri_niri_11_full_1amp.fits"
    archive.hold(name, BODY)
    path = datasets.fetch_bpm(name.removesuffix(".fits"), tmp_path, **options)
    assert path.read_bytes() == BODY
    archive.requests.clear()
    assert datasets.fetch_bpm(name, tmp_path, **options) == path
    assert archive.requests == []
    with pytest.raises(InputError, match=r"Did you mean 'bpm_20010317_niri_niri_11_full_1amp.fits'"):
        datasets.fetch_bpm("bpm_20010318_niri_niri_11_full_1amp", tmp_path, **options)


def test_the_record_of_checksums_keeps_what_others_wrote(archive, options, tmp_path):
    archive.hold(NAME, BODY)
    foreign = f"# mine\n{'a' * 64} *other.fits\n{'b' * 64}  {NAME}"
    (tmp_path / "SHA256SUMS").write_text(foreign)
    datasets.download(NAME, tmp_path, **options)
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert lines == ["# mine", f"{'a' * 64} *other.fits", f"{hashlib.sha256(BODY).hexdigest()}  {NAME}"]
