"""EnhanceNet's adapter and its reader of TensorFlow's tables: goldens of TensorFlow, damage, and what is refused."""

import itertools
import math
import pickle
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import baselines
from baselines import enhancenet
from baselines._pixels import half_up
from baselines._tensorflow_table import read_table
from sr3eval.errors import UserError
from sr3eval.method import Method

GOLDENS = Path(__file__).parent / "goldens"
RECIPE = runpy.run_path(str(GOLDENS / "enhancenet.py"))
CHANNELS, BLOCKS, fill = RECIPE["CHANNELS"], RECIPE["BLOCKS"], RECIPE["fill"]
GOLDEN = np.load(GOLDENS / "enhancenet.npz")
WRITTEN_BY_TENSORFLOW = GOLDENS / "enhancenet_weights"
EXACT_OVERLAP = 2 * BLOCKS + 3


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


def variables(channels: int = CHANNELS, blocks: int = BLOCKS) -> dict[str, np.ndarray]:
    """The recipe's variables, by name."""
    widths = [3, *[channels] * (2 * blocks + 4), 3]
    filled = {}
    for i, sizes in enumerate(itertools.pairwise(widths)):
        scope = f"generator/Conv_{i}" if i else "generator/Conv"
        for name, shape in ((f"{scope}/weights", (3, 3, *sizes)), (f"{scope}/biases", sizes[1:])):
            filled[name] = fill(name, shape)
    return filled


# A writer of the format, apart from the reader: https://github.com/google/leveldb/blob/main/doc/table_format.md


def varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def number(tag: int, value: int) -> bytes:
    return varint(tag << 3) + varint(value)


def part(tag: int, value: bytes) -> bytes:
    return varint(tag << 3 | 2) + varint(len(value)) + value


def whole(array: np.ndarray) -> bytes:
    """TensorSliceProto of all of an array."""
    return part(1, b"") * array.ndim


def header(tensors: dict[str, np.ndarray]) -> bytes:
    """SavedTensorSlices with the metadata alone."""
    declared = b""
    for name, array in sorted(tensors.items()):
        shape = b"".join(part(2, number(1, size)) for size in array.shape)
        dtype = {"float32": 1, "int64": 9}[array.dtype.name]
        declared += part(1, part(1, name.encode()) + part(2, shape) + number(3, dtype) + part(4, whole(array)))
    return part(1, declared + part(2, number(1, 1)))


def entry(name: str, array: np.ndarray) -> tuple[bytes, bytes]:
    values = part(5, array.tobytes()) if array.dtype == np.float32 else part(10, varint(int(array)))
    key = b"\0" + name.encode() + b"\0\1" + (b"\1" + bytes([array.ndim]) if array.ndim else b"\0")
    return key + b"\x80\x7f" * array.ndim, part(2, part(1, name.encode()) + part(2, whole(array)) + part(3, values))


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return ~crc & 0xFFFFFFFF


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    data, last = b"", b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return data + bytes(4) + (1).to_bytes(4, "little")


def table(entries: list[tuple[bytes, bytes]], a_block: int = 3, damage=lambda data: data) -> bytes:
    """A file of the entries. damage: changes a block before its checksum is made."""
    content, index = b"", []

    def append(entries: list[tuple[bytes, bytes]]) -> bytes:
        nonlocal content
        data = damage(block(entries))
        crc = crc32c(data + b"\0")
        masked = (((crc >> 15) | (crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) % 2**32
        handle = varint(len(content)) + varint(len(data))
        content += data + b"\0" + masked.to_bytes(4, "little")
        return handle

    for start in range(0, len(entries), a_block):
        index.append((entries[start : start + a_block][-1][0], append(entries[start : start + a_block])))
    handles = append([]) + append(index)
    return content + handles.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def checkpoint(tensors: dict[str, np.ndarray], **options) -> bytes:
    return table([(b"", header(tensors)), *(entry(*item) for item in sorted(tensors.items()))], **options)


@pytest.fixture
def write(tmp_path):
    def written(content: bytes, name: str = "weights") -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return written


def load(**options) -> Method:
    return baselines.load("enhancenet", **({"weights": str(WRITTEN_BY_TENSORFLOW)} | options))


# The reader


def assert_same(tensors: dict[str, torch.Tensor], arrays: dict[str, np.ndarray]) -> None:
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert tensors[name].shape == array.shape
        assert tensors[name].dtype == torch.float32
        assert np.array_equal(tensors[name].numpy(), array), name


def test_reads_what_tensorflow_wrote():
    assert_same(read_table(str(WRITTEN_BY_TENSORFLOW), "enhancenet").weights, variables())


@pytest.mark.parametrize("a_block", [1, 3, 100])
def test_round_trip(write, a_block):
    arrays = variables(3, 1) | {"scalar": np.float32(0.5).reshape(()), "generator/Ä": np.ones((1, 70, 2), np.float32)}
    others = {"global_step": np.array(7)}
    assert_same(read_table(write(checkpoint(arrays | others, a_block=a_block)), "enhancenet").weights, arrays)


SMALL = {"generator/Conv/biases": np.arange(3, dtype=np.float32), "generator/Conv/weights": np.ones((2, 2), np.float32)}


def test_truncated_anywhere(write):
    content = checkpoint(SMALL)
    for size in range(len(content)):
        with pytest.raises(UserError, match="not a TensorFlow V1 table, or truncated"):
            read_table(write(content[:size]), "enhancenet")


def test_a_flipped_bit_is_found(write):
    """But in the block that nobody reads, its handle and the padding."""
    content = checkpoint(SMALL)
    harmless = []
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        try:
            assert_same(read_table(write(bytes(damaged)), "enhancenet").weights, SMALL)
        except UserError:
            continue
        harmless.append(position)
    footer = len(content) - 48
    assert max(harmless) < footer + 40
    unread_block = [position for position in harmless if position < footer]
    assert max(unread_block) - min(unread_block) < len(block([])) + 5


def test_damage_below_right_checksums_is_an_error_of_the_user(write):
    """What the checksums let pass is read without trust: nothing but UserError comes out, or float32 tensors."""
    random = np.random.default_rng(0)

    def damage(data: bytes) -> bytes:
        damaged = bytearray(data)
        for _ in range(random.integers(1, 4)):
            position = int(random.integers(len(damaged)))
            damaged[position : position + int(random.integers(0, 3))] = random.bytes(int(random.integers(0, 3)))
            damaged = damaged or bytearray(1)
        return bytes(damaged)

    errors = 0
    for _ in range(800):
        try:
            read = read_table(write(checkpoint(SMALL, damage=damage)), "enhancenet")
        except UserError:
            errors += 1
        else:
            assert all(value.dtype == torch.float32 for value in read.weights.values())
    assert errors > 400


@pytest.mark.parametrize(
    ("values", "shape"),
    [(b"", (0, 2**63)), (b"", (2,)), (bytes(8), (3,)), (bytes(7), (2,)), (bytes(8), (2**32, 2**32)), (b"", ())],
)
def test_sizes_are_checked(write, values, shape):
    dimensions = b"".join(part(2, number(1, size)) for size in shape)
    declared = part(1, part(1, part(1, b"x") + part(2, dimensions) + number(3, 1)))
    content = table([(b"", declared), (b"\0x", part(2, part(1, b"x") + part(3, part(5, values))))])
    with pytest.raises(UserError, match=re.escape(f"x: {len(values)} bytes of values for the shape {shape}")):
        read_table(write(content), "enhancenet")


def test_other_tables(write):
    index_of_v2 = table([(b"", number(1, 1) + part(3, number(1, 1))), (b"generator/x", number(1, 1))])
    for content in (table([]), table([(b"key", b"value")]), index_of_v2):
        with pytest.raises(UserError, match="a LevelDB table, but not a TensorFlow V1 checkpoint"):
            read_table(write(content), "enhancenet")
    compressed = bytearray(content := table([(b"", b"")]))
    compressed[len(block([(b"", b"")]))] = 1
    with pytest.raises(UserError, match="checksum"):
        read_table(write(bytes(compressed)), "enhancenet")
    with pytest.raises(UserError, match="not a TensorFlow V1 table, or truncated"):
        read_table(write(content + b"\n"), "enhancenet")


# The network


def test_golden():
    network = load().network
    x = golden("lr") - torch.tensor(enhancenet.RGB_MEANS)[:, None, None]
    with torch.inference_mode():
        torch.testing.assert_close(network.residual(x), golden("residual"), atol=1e-5, rtol=0)
        torch.testing.assert_close(enhancenet.legacy_bicubic(x), golden("skip"), atol=1e-6, rtol=0)
    sr = load(quantize="none").upscale(golden("lr"), [0, 1]).images
    torch.testing.assert_close(sr, golden("sr").clamp(0, 1), atol=1e-5, rtol=0)


def test_official_rule_gives_the_official_levels():
    levels = load().upscale(golden("lr"), [0, 1]).images * 255
    assert torch.equal(levels.round() / 255, levels / 255)
    differences = (levels.round() - golden("sr8")).abs()
    assert differences.max() <= 1
    assert (differences > 0).float().mean() < 1e-3  # values within the last bits of a half


def test_half_up():
    levels = torch.tensor([-1.0, 0.49, 0.5, 1.5, 2.5, 253.5, 254.49, 254.5, 255.0, 300.0])
    exact = torch.tensor([0.0, 0, 1, 2, 3, 254, 254, 255, 255, 255])
    halves = levels / 255 * 255 == levels  # division loses the exact half of some
    assert halves.sum() > 6
    assert torch.equal(half_up(levels / 255)[halves], (exact / 255)[halves])
    half = torch.tensor([0.5, 2.5]) / 255  # torch's round goes to even
    assert torch.equal(half_up(half) * 255 - (half * 255).round(), torch.tensor([1.0, 1.0]))


def keys_cubic(x: float, a: float = -0.75) -> float:
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2), (6, 7)])
def test_legacy_bicubic_is_the_sum_it_stands_for(size):
    image = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(0))
    enlarged = enhancenet.legacy_bicubic(image)
    height, width = size
    assert enlarged.shape == (1, 2, 4 * height, 4 * width)
    for c, i, j in itertools.product(range(2), range(4 * height), range(4 * width)):
        y, x = i / 4, j / 4
        total = 0.0
        for v, u in itertools.product(range(-1, 3), range(-1, 3)):
            row, column = math.floor(y) + v, math.floor(x) + u
            pixel = image[0, c, min(max(row, 0), height - 1), min(max(column, 0), width - 1)].item()
            total += keys_cubic(y - row) * keys_cubic(x - column) * pixel
        assert abs(total - enlarged[0, c, i, j].item()) < 1e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 3)])
def test_doubling_is_a_convolution_of_the_enlarged(size):
    torch.manual_seed(0)
    conv, x = enhancenet.Doubling(3, 4, 3, padding=1), torch.randn(2, 3, *size)
    enlarged = F.interpolate(x, scale_factor=2, mode="nearest")
    expected = F.conv2d(enlarged, conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(x), expected, atol=1e-6, rtol=0)


# The method


@pytest.fixture
def lr():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_contract(lr):
    method = load()
    assert isinstance(method, Method)
    assert (method.name, method.scale, method.facts.lr_kernel) == ("enhancenet", 4, "Pillow Lanczos")
    before = lr.clone()
    sr = method.upscale(lr, [5, 6, 7]).images
    assert torch.equal(lr, before)
    assert sr.shape == (3, 3, 64, 64)
    assert sr.dtype == torch.float32
    assert 0 <= sr.min() < sr.max() <= 1
    assert torch.equal(method.upscale(lr, [8, 9, 9]).images, sr)
    assert torch.equal(method.upscale(lr.flip(0), [7, 6, 5]).images, sr.flip(0))
    assert torch.equal(load().upscale(lr, [5, 6, 7]).images, sr)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 5)])
def test_any_size(size):
    assert load().upscale(torch.rand(1, 3, *size), [0]).images.shape == (1, 3, 4 * size[0], 4 * size[1])


def test_fingerprint_changes_with_everything_that_changes_outputs(write, lr):
    changed = variables()
    changed["generator/Conv_3/biases"] = changed["generator/Conv_3/biases"] + np.float32(0.1)
    methods = [
        load(),
        load(weights=write(checkpoint(changed))),
        load(quantize="none"),
        load(quantize="none", tile=8, overlap=0),
        load(quantize="none", tile=8, overlap=1),
        load(quantize="none", tile=7, overlap=1),
    ]
    assert len({method.fingerprint for method in methods}) == len(methods)
    outputs = [method.upscale(lr, [0, 1, 2]).images for method in methods]
    assert not any(torch.equal(*pair) for pair in itertools.combinations(outputs, 2))
    assert load().fingerprint == methods[0].fingerprint
    assert load(overlap=3).fingerprint == methods[0].fingerprint  # which takes images whole
    assert methods[0].facts.checksums["weights"] != methods[1].facts.checksums["weights"]


def test_tiles_are_the_whole_from_the_documented_overlap_on():
    lr = torch.rand(2, 3, 37, 30, generator=torch.Generator().manual_seed(0))
    whole = load(quantize="none").upscale(lr, [0, 1]).images
    exact = load(quantize="none", tile=9, overlap=EXACT_OVERLAP).upscale(lr, [0, 1]).images
    torch.testing.assert_close(exact, whole, atol=2e-6, rtol=0)
    near = load(quantize="none", tile=9, overlap=1).upscale(lr, [0, 1]).images
    assert (near - whole).abs().max() > 1e-4


# What is refused


@pytest.mark.parametrize("options", [{"tile": 0}, {"tile": -4}, {"tile": 8, "overlap": -1}])
def test_options_out_of_range(options):
    with pytest.raises(UserError, match="must be positive"):
        load(**options)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match=f"{path}: weights cannot be read"):
            load(weights=str(path))


def test_a_pytorch_file_says_what_it_looks_like(tmp_path, write):
    path = tmp_path / "RRDB_ESRGAN_x4.pth"
    torch.save({"RRDB_trunk.0.RDB1.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(
        UserError, match="a PyTorch checkpoint, not a TensorFlow V1 table.*it looks like esrgan; sha256"
    ):
        load(weights=str(path))
    with pytest.raises(UserError, match="not a PyTorch checkpoint, or truncated"):
        load(weights=write(path.read_bytes()[:-40]))


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_pickled_code_is_not_run(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="holds pickled code, which is not run"):
        load(weights=write(pickle.dumps({"weight": Trap()})))
    assert not Path("executed").exists()


def without(name: str) -> dict[str, np.ndarray]:
    return {key: value for key, value in variables().items() if key != name}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"discriminator/w": np.ones(2, np.float32)}, "its variables are not generator/Conv/weights and on"),
        (without("generator/Conv/biases"), "its variables are not generator/Conv/weights and on"),
        (without("generator/Conv_4/weights"), "convs.4.weight: None, not (8, 8, 3, 3)"),
        (variables() | {"generator/Conv_9/biases": np.ones(8, np.float32)}, "convs.9.bias"),
        (variables() | {"generator/Conv_2/weights": np.ones((3, 3), np.float32)}, "convs.2.weight: (3, 3), not"),
        (variables() | {"generator/Conv/biases": np.ones((), np.float32)}, "keys differ"),
    ],
)
def test_tables_of_other_networks(write, arrays, message):
    with pytest.raises(UserError, match="not weights of enhancenet.*" + re.escape(message)):
        load(weights=write(checkpoint(arrays)))


def test_variables_of_training_are_left_out(write, lr):
    training = {"generator/Conv/weights/Adam": np.ones(2, np.float32), "global_step": np.array(3)}
    method = load(weights=write(checkpoint(variables() | training)))
    assert torch.equal(method.upscale(lr, [0, 1, 2]).images, load().upscale(lr, [0, 1, 2]).images)
