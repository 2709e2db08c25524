"""The hub's cache, as its own client leaves it."""

from pathlib import Path


def cache_repository(cache: Path, repo: str, absent: tuple[str, ...] = ()) -> Path:
    """The folder of a repository's files in the hub's cache, as a download leaves it.

    absent: files that the cache knows the repository does not have.
    """
    root, commit = cache / f"models--{repo.replace('/', '--')}", "0" * 40
    for folder in (root / "snapshots" / commit, root / "refs", root / ".no_exist" / commit):
        folder.mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    for name in absent:
        (root / ".no_exist" / commit / name).touch()
    return root / "snapshots" / commit
