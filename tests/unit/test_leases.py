"""Leases on a side file, among the handles of one process; the contract of stores tests them among processes."""

from pathlib import Path

import pytest

from genesis_cache.tiers.base import StoreError
from genesis_cache.tiers.leases import FileLeases

A, B = bytes(32), bytes([1] * 32)


def test_the_first_to_open_is_alone(tmp_path: Path) -> None:
    """Who opens the file first is told so, and again when all others have closed."""
    one, two = FileLeases(tmp_path / "lease"), FileLeases(tmp_path / "lease")
    assert one.open()
    assert not one.open()
    assert not two.open()
    two.close()
    one.close()
    assert two.open()
    two.close()


def test_closing_frees_what_was_held(tmp_path: Path) -> None:
    """A handle's leases end with it, those of others in the same process stay."""
    one, two = FileLeases(tmp_path / "lease"), FileLeases(tmp_path / "lease")
    one.open()
    two.open()
    assert one.take(A)
    assert two.take(B)
    assert not two.take(A)
    one.close()
    one.close()
    assert two.take(A)
    one.open()
    assert not one.take(B)
    one.close()
    two.close()


def test_only_one_rebuilds(tmp_path: Path) -> None:
    """While one handle makes the store anew, another is told to wait; an error on the way gives the right back."""
    one, two = FileLeases(tmp_path / "lease"), FileLeases(tmp_path / "lease")
    one.open()
    two.open()
    with one.rebuilding(), pytest.raises(StoreError, match="anew"), two.rebuilding():
        pass
    with pytest.raises(KeyError), two.rebuilding():
        raise KeyError
    with one.rebuilding():
        assert one.take(A)
    one.close()
    two.close()


def test_a_closed_handle_gives_no_lease(tmp_path: Path) -> None:
    """Asking a handle that is not open is an error, giving back is not."""
    leases = FileLeases(tmp_path / "lease")
    assert not leases.is_open
    leases.give(A)
    with pytest.raises(StoreError, match="not open"):
        leases.take(A)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A side file that leads elsewhere is refused."""
    (tmp_path / "lease").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="cannot be opened"):
        FileLeases(tmp_path / "lease").open()
    assert not (tmp_path / "elsewhere").exists()
