"""
Builds what is released of a commit: the wheel, the sdist, the npm package and their checksums.

The same commit gives the same bytes, wherever and whenever it is built with the same tools: what is
built is exported from git, and every time in an archive is that of the commit, or a fixed one.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILT = ("brain-*.whl", "brain-*.tar.gz", "brain-realtime-*.tgz", "SHA256SUMS")
CLIENT = Path("clients", "typescript")
SERVED = Path("brain", "web", "static", "client")
"""The files that the npm package's build writes for Brain to serve."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m release.dist", description=__doc__)
    parser.add_argument("--commit", default="HEAD", help="what to build (default: %(default)s)")
    parser.add_argument("--outdir", type=Path, default=ROOT / "dist", help="default: dist/")
    parser.add_argument("--python-only", action="store_true", help="build no npm package")
    options = parser.parse_args(arguments)
    if git("status", "--porcelain"):
        print(f"what is not committed is left out: this builds {options.commit}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        tree, built = Path(folder, "tree"), Path(folder, "built")
        built.mkdir()
        export(options.commit, tree)
        build_python(tree, built, git("show", "-s", "--format=%ct", options.commit).strip())
        if not options.python_only:
            build_npm(tree, built)
        (built / "SHA256SUMS").write_text(checksums(built))
        replace(options.outdir, built)
    for file in sorted(options.outdir.iterdir()):
        print(file)


def git(*arguments: str) -> str:
    return run("git", *arguments, cwd=ROOT)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command, and return what it prints; end with all that it says if it fails."""
    found = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        umask=0o022,  # npm packs the modes of files as they are
    )
    if found.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{found.stdout}{found.stderr}")
    return found.stdout


def export(commit: str, tree: Path) -> None:
    """Write the files of a commit into a new folder."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", commit], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(tree, filter="data")


def build_python(tree: Path, built: Path, epoch: str) -> None:
    """Build the sdist, and the wheel from the sdist."""
    constraints = str(tree / "constraints.txt")
    run(
        *(sys.executable, "-m", "build", "--outdir", built, tree),
        cwd=tree,
        SOURCE_DATE_EPOCH=epoch,
        PIP_CONSTRAINT=constraints,
    )


def build_npm(tree: Path, built: Path) -> None:
    """Build the npm package; what Brain serves of it has to be what is committed."""
    packages = Path(os.environ.get("NODE_CLIENT_PACKAGES") or ROOT / CLIENT) / "node_modules"
    if shutil.which("npm") is None or not packages.is_dir():
        sys.exit("the npm package needs npm, and `npm ci` in clients/typescript; or: --python-only")
    committed = contents(tree / SERVED)
    (tree / CLIENT / "node_modules").symlink_to(packages)
    run("npm", "pack", "--pack-destination", built, cwd=tree / CLIENT)
    if contents(tree / SERVED) != committed:
        sys.exit(
            "what Brain serves below /client/ is not what its sources build: run `make client`"
        )


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def checksums(folder: Path) -> str:
    """Return a line per file, as `sha256sum --check` reads them."""
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(folder.iterdir())
    )


def replace(outdir: Path, built: Path) -> None:
    """Move what was built to where it is wanted, in place of an earlier build."""
    outdir.mkdir(parents=True, exist_ok=True)
    for pattern in BUILT:
        for file in outdir.glob(pattern):
            file.unlink()
    for file in built.iterdir():
        shutil.move(file, outdir / file.name)


if __name__ == "__main__":
    main()
