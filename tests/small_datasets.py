"""Small data sets in WILDS' own on-disk formats, one writer a dataset."""

import csv
import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

RNG = np.random.default_rng(0)


def image(path: Path, size: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(path)


def waterbirds(root: Path) -> Path:
    folder = root / "waterbirds_v1.0"
    rows = []
    for i in range(24):
        image(folder / f"{i}.png")
        rows.append(
            {
                "img_id": i,
                "img_filename": f"{i}.png",
                "y": i % 2,
                "split": (i // 4) % 3,
                "place": (i // 2) % 2,
            }
        )
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


def celeba(root: Path) -> Path:
    folder = root / "celebA_v1.0"
    attributes, partition = [], []
    for i in range(24):
        image(folder / "img_align_celeba" / f"{i:06d}.jpg")
        attributes.append(
            {
                "image_id": f"{i:06d}.jpg",
                "Blond_Hair": 1 if i % 2 else -1,
                "Male": 1 if (i // 2) % 2 else -1,
            }
        )
        partition.append({"image_id": f"{i:06d}.jpg", "partition": (i // 4) % 3})
    pd.DataFrame(attributes).to_csv(folder / "list_attr_celeba.csv", index=False)
    pd.DataFrame(partition).to_csv(folder / "list_eval_partition.csv", index=False)
    return folder


IDENTITIES = ("male", "female", "LGBTQ", "christian", "muslim", "other_religions", "black", "white")
AUXILIARY = (
    "identity_any",
    "severe_toxicity",
    "obscene",
    "threat",
    "insult",
    "identity_attack",
    "sexual_explicit",
)


def civilcomments(root: Path) -> Path:
    folder = root / "civilcomments_v1.0"
    folder.mkdir(parents=True)
    rows = []
    for i in range(48):
        row = {
            "comment_text": f"comment number {i} is {'rude' if i % 2 else 'kind'}",
            "toxicity": float(i % 2),
        }
        row |= {"split": ("train", "val", "test")[(i // 2) % 3]}
        row |= {name: float((i // 6) % 8 == k or (i // 6 + 1) % 8 == k) for k, name in enumerate(IDENTITIES)}
        row |= dict.fromkeys(AUXILIARY, 0.0) | {"identity_any": float((i // 6) % 4 != 0)}
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "all_data_with_identities.csv")
    return folder


def camelyon17(root: Path) -> Path:
    folder = root / "camelyon17_v1.0"
    rows = []
    for i in range(40):
        center = i % 5
        row = {
            "patient": f"{center:03d}",
            "node": 0,
            "x_coord": i,
            "y_coord": 0,
            "tumor": (i // 5) % 2,
            "slide": center,
        }
        row |= {"center": center, "split": int((i // 10) % 2)}
        image(folder / f"patches/patient_{center:03d}_node_0/patch_patient_{center:03d}_node_0_x_{i}_y_0.png")
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "metadata.csv")
    return folder


def fmow(root: Path) -> Path:
    folder = root / "fmow_v1.1"
    rows = []
    years = {"train": 2005, "val": 2014, "test": 2016}
    for i in range(36):
        split = ("train", "val", "test")[i % 3]
        country = ("FRA", "KEN", "BRA")[(i // 3) % 3]
        row = {
            "split": split,
            "category": ("airport", "zoo")[(i // 9) % 2],
            "country_code": country,
        }
        rows.append(row | {"timestamp": f"{years[split]}-06-01T00:00:00Z"})
        image(folder / "images" / f"rgb_img_{i}.png")
    pd.DataFrame(rows).to_csv(folder / "rgb_metadata.csv", index=False)
    regions = {"FRA": "Europe", "KEN": "Africa", "BRA": "Americas"}
    pd.DataFrame({"alpha-3": list(regions), "region": list(regions.values())}).to_csv(
        folder / "country_code_mapping.csv", index=False
    )
    return folder


def amazon(root: Path) -> Path:
    folder = root / "amazon_v2.1"
    (folder / "splits").mkdir(parents=True)
    rows, splits = [], []
    codes = (0, 1, 2, 3, 4, 12)  # train, val, id_val, test, id_test, test_unlabeled
    for i in range(120):
        split = i % len(codes)
        row = {
            "reviewerID": f"user{split}{(i // 4) % 4}",
            "asin": f"product{i % 7}",
            "overall": float(1 + (i // len(codes)) % 5),
        }
        row |= {
            "reviewTime": "01 1, 2015",
            "unixReviewTime": 1420070400 + i,
            "reviewText": f"review {i} fine",
            "summary": "s",
        }
        rows.append(row | {"verified": True, "category": ("Books", "Toys")[i % 2], "reviewYear": 2015})
        splits.append({"split": codes[split], "clean": True})
    pd.DataFrame(rows).to_csv(folder / "reviews.csv", index=False, quoting=csv.QUOTE_NONNUMERIC)
    pd.DataFrame(splits).to_csv(folder / "splits" / "user.csv", index=False)
    return folder


def iwildcam(root: Path) -> Path:
    folder = root / "iwildcam_v2.0"
    rows = []
    for i in range(40):
        row = {
            "split": ("train", "val", "test", "id_val", "id_test")[i % 5],
            "filename": f"{i}.jpg",
            "y": (i // 5) % 2,
        }
        row |= {
            "location_remapped": i % 5,
            "sequence_remapped": i,
            "datetime": "2013-06-05 05:44:19.000",
        }
        rows.append(row)
        image(folder / "train" / f"{i}.jpg")
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    pd.DataFrame({"y": [0, 1], "category_id": [0, 1], "name": ["empty", "cat"]}).to_csv(
        folder / "categories.csv", index=False
    )
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "waterbirds": waterbirds,
    "celebA": celeba,
    "civilcomments": civilcomments,
    "camelyon17": camelyon17,
    "fmow": fmow,
    "amazon": amazon,
    "iwildcam": iwildcam,
}


def tokenizer(root: Path) -> Path:
    """Write a word-level tokenizer that transformers loads from its folder."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "comment", "number", "is", "rude", "kind", "review", "fine"]
    model = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    model.pre_tokenizer = Whitespace()
    folder = root / "tokenizer"
    PreTrainedTokenizerFast(tokenizer_object=model, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    assert json.loads((folder / "tokenizer.json").read_text())
    return folder


def write(name: str, root: Path) -> Path:
    """Write a data set with the file by which WILDS knows that it is whole; returns its folder."""
    folder = WRITERS[name](root)
    version = folder.name.rsplit("_v", 1)[1]
    (folder / f"RELEASE_v{version}.txt").write_text("written by a test\n")
    return folder


def write_idx(path: Path, values: torch.Tensor, compress: bool = False) -> None:
    """Write an IDX file of unsigned bytes."""
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    content = head + values.numpy().tobytes()
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(content)) if compress else path.write_bytes(content)


def write_gsm8k(folder: Path, n: int = 12) -> None:
    """Write a small GSM8K in its own format."""
    for split in ("train", "test"):
        rows = [
            {
                "question": f"Tom has {i} eggs and gets {i + 1} more. How many?",
                "answer": f"{i}+{i + 1}=<<{i}+{i + 1}={2 * i + 1}>>{2 * i + 1}\n#### {2 * i + 1}",
            }
            for i in range(n)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def write_gsm8k_solutions(folder: Path, n: int = 12) -> None:
    """Write solutions by one model in the layout of GSM8K's own, every second one wrong."""
    rows = [
        {
            "question": f"Tom has {i} eggs and gets {i + 1} more. How many?",
            "ground_truth": f"{i}+{i + 1}={2 * i + 1}\n\nA: {2 * i + 1}",
            "6b_finetuning": {
                "solution": f"{i}+{i + 1}={2 * i + 1 + i % 2}\n\nA: {2 * i + 1 + i % 2}",
                "is_correct": i % 2 == 0,
            },
        }
        for i in range(n)
    ]
    (folder / "example_model_solutions.jsonl").write_text("\n".join(map(json.dumps, rows)))


def write_big_bench_mistake(folder: Path, n: int = 12) -> None:
    """Write chains of thought about sorting words in BIG-Bench Mistake's layout, every second one wrong at its end."""
    rows = [
        {
            "input": f"Sort the words: b{i} a{i}",
            "target": f"a{i} b{i}",
            "steps": [f"The words are b{i} and a{i}.", "a is before b." if i % 2 else "b is before a."],
            "mistake_index": None if i % 2 else 1,
        }
        for i in range(n)
    ]
    (folder / "word_sorting.jsonl").write_text("\n".join(map(json.dumps, rows)))


def write_pairs(folder: Path, n: int = 10) -> Path:
    """Write preference pairs as text."""
    path = folder / "pairs.jsonl"
    rows = [{"prompt": f"{i}+1=", "chosen": f"{i + 1}", "rejected": f"{i}"} for i in range(n)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def write_fashion_mnist(folder: Path, n: int = 600) -> None:
    """Write Fashion-MNIST's four IDX files with random images."""
    for stem in ("train", "t10k"):
        images = torch.randint(0, 256, (n, 28, 28), dtype=torch.uint8)
        write_idx(folder / f"{stem}-images-idx3-ubyte", images)
        write_idx(folder / f"{stem}-labels-idx1-ubyte", (torch.arange(n) % 10).to(torch.uint8))


def write_cifar10(folder: Path, n: int = 120, binary: bool = False) -> np.ndarray:
    """Write CIFAR-10 with random images, as the hub's parquet files or the binary version; return the images."""
    import io

    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    images = RNG.integers(0, 255, (n, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(n) % 10
    if binary:
        records = np.concatenate([labels[:, None].astype(np.uint8), images.transpose(0, 3, 1, 2).reshape(n, -1)], 1)
        for i, part in enumerate(np.array_split(records, 5), 1):
            (folder / f"data_batch_{i}.bin").write_bytes(part.tobytes())
        (folder / "test_batch.bin").write_bytes(records.tobytes())
        return images
    stored = []
    for pixels in images:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        stored.append({"bytes": buffer.getvalue(), "path": None})
    table = pyarrow.table({"img": stored, "label": labels})
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
    return images


def write_madlibs(folder: Path, n: int = 80) -> Path:
    """Write templated sentences."""
    path = folder / "bias_madlibs_77k.csv"
    words = {"BAD": ("vile", "rotten"), "NOT_BAD": ("kind", "great")}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Text", "Label", "Template"])
        for i in range(n):
            label = ("BAD", "NOT_BAD")[i % 2]
            word = words[label][(i // 2) % 2]
            writer.writerow([f"Anna{i} is a {word} person", label, "name_adj"])
            writer.writerow([f"You are {word}", label, "you_are_adj"])
    return path
