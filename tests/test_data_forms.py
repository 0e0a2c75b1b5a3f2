"""Forms of caption tables, as their makers write them, and what is wrong with broken ones."""

import json

import pytest

from paligemma_lib.data.sources.json_forms import USUAL, Columns
from paligemma_lib.data.sources.table_forms import READERS
from paligemma_lib.data.sources.table_recognition import form_of_json

KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "filename": "COCO_val2014_1.jpg",
            "split": "restval",
            "sentences": [{"raw": "A man .", "tokens": ["a", "man"]}, {"raw": "Two men ."}],
        },
        {"filename": "b.jpg", "split": "test", "sentences": [{"raw": "A dog ."}]},
    ],
}
COCO = {
    "info": {},
    "images": [{"id": 9, "file_name": "000000000009.jpg"}, {"id": 7, "file_name": "x.jpg"}],
    "annotations": [
        {"image_id": 9, "id": 1, "caption": "A bowl.\n"},
        {"image_id": 9, "id": 2, "caption": "Food."},
    ],
}
LLAVA = [
    {
        "id": "1",
        "image": "coco/1.jpg",
        "conversations": [
            {"from": "human", "value": "What is it?\n<image>"},
            {"from": "gpt", "value": "A bus."},
            {"from": "human", "value": "Which colour?"},
            {"from": "gpt", "value": "Red."},
        ],
    }
]
FLICKR30K = (
    "image_name| comment_number| comment\n"
    '1.jpg| 0| Two "young" guys , outside .\n1.jpg| 1| Two men .\n2.jpg| 0| A dog .\n'
)


def rows(form, data, columns=USUAL):
    data = data if isinstance(data, bytes) else data.encode()
    found = list(READERS[form](data, columns))
    for problem in filter(None, (row.problem for row in found)):
        raise ValueError(problem)
    return [(r.image, r.caption, r.prefix, r.split) for r in found]


@pytest.mark.parametrize(
    ("form", "data", "expected"),
    [
        (
            "karpathy",
            json.dumps(KARPATHY),
            [
                ("val2014/COCO_val2014_1.jpg", "A man .", None, "restval"),
                ("val2014/COCO_val2014_1.jpg", "Two men .", None, "restval"),
                ("b.jpg", "A dog .", None, "test"),
            ],
        ),
        (
            "coco",
            json.dumps(COCO),
            [
                ("000000000009.jpg", "A bowl.\n", None, ""),
                ("000000000009.jpg", "Food.", None, ""),
                ("x.jpg", None, None, ""),
            ],
        ),
        (
            "json",
            json.dumps(LLAVA),
            [
                ("coco/1.jpg", "A bus.", "What is it?", ""),
                ("coco/1.jpg", "Red.", "Which colour?", ""),
            ],
        ),
        (
            "json",
            json.dumps([{"file_name": "a", "question": "q", "answers": ["x", {"answer": "y"}]}]),
            [("a", "x", "q", ""), ("a", "y", "q", "")],
        ),
        (
            "delimited",
            FLICKR30K,
            [
                ("1.jpg", 'Two "young" guys , outside .', None, ""),
                ("1.jpg", "Two men .", None, ""),
                ("2.jpg", "A dog .", None, ""),
            ],
        ),
        (
            "delimited",
            '\ufeffsplit\tfile_name\ttext\ntrain\ta.jpg\t"two\nlines"\n\nval\tb.jpg\tx\n',
            [("a.jpg", "two\nlines", None, "train"), ("b.jpg", "x", None, "val")],
        ),
        (
            "delimited",
            "Image;Caption\r\na.jpg;A dog, running\r\n".encode("utf-16"),
            [("a.jpg", "A dog, running", None, "")],
        ),
        (
            "delimited",
            "\n \nimage,caption\na.jpg,A dog\n",
            [("a.jpg", "A dog", None, "")],
        ),
        ("tokens", "a.jpg#0\tA\u2028dog\r\n", [("a.jpg", "A\u2028dog", None, "")]),
        ("captions.txt", "image,caption\na.jpg,A\x85dog\n", [("a.jpg", "A\x85dog", None, "")]),
        ("delimited", "image,caption,caption\na.jpg,one,two\n", [("a.jpg", "one", None, "")]),
        (
            "delimited",
            "Image,Prefix,Suffix,Split\na.jpg,how many?,2,train\na.jpg,,a dog,val\n",
            [("a.jpg", "2", "how many?", "train"), ("a.jpg", "a dog", None, "val")],
        ),
        (
            "delimited",  # the broken row of Flickr30k's own table
            "image_name| comment_number| comment\na.jpg| 3| A dog .\na.jpg| 4   A cat .\n",
            [("a.jpg", "A dog .", None, ""), ("a.jpg", "A cat .", None, "")],
        ),
        (
            "jsonl",
            '{"image": "a.jpg", "suffix": "x", "split": null}\n'.encode("utf-16"),
            [("a.jpg", "x", None, "")],
        ),
        (
            "json",
            json.dumps(
                [
                    {"conversations": [{"from": "human", "value": "hello"}]},  # of no image
                    {
                        "image": "a.jpg",
                        "conversations": [
                            {"from": "Human", "value": "<image>\nWhat?"},
                            {"from": "gpt", "value": "A dog"},
                        ],
                    },
                ]
            ),
            [("a.jpg", "A dog", "What?", "")],
        ),
        (
            "tokens",
            "a.jpg#0\tA dog .\na.jpg#1\tTwo .\n",
            [("a.jpg", "A dog .", None, ""), ("a.jpg", "Two .", None, "")],
        ),
    ],
)
def test_a_form_is_read(form, data, expected):
    assert rows(form, data) == expected


def test_columns_may_be_named():
    data = "url,picture,said\nu,a.jpg,A dog\n"
    assert rows("delimited", data, Columns("picture", "said")) == [("a.jpg", "A dog", None, "")]
    line = json.dumps({"pic": "a.jpg", "said": ["x"]})
    assert rows("jsonl", line, Columns("pic", "said")) == [("a.jpg", "x", None, "")]


@pytest.mark.parametrize(
    ("form", "data", "message"),
    [
        ("delimited", "name,caption\na,b\n", "line 1: no image column found among name"),
        ("delimited", "image,words\na,b\n", "line 1: no caption column found among"),
        ("delimited", "image,caption\na.jpg\n", "line 2: .* has no image, or no caption"),
        ("delimited", "image,caption\na.jpg, \n", "line 2: the caption of 'a.jpg' is empty"),
        ("delimited", b"image,caption\na.jpg,caf\xe9\n", "line 2 is not UTF-8.*: save it as UTF-8"),
        (
            "delimited",
            'image,caption\n1.jpg,"a dog\n2.jpg,a cat\n3.jpg,a bird\n',
            "after line 1: unexpected end of data. Close each quote",
        ),
        ("delimited", 'image\tcaption\n1.jpg\t"Stop" sign\n', "after line 1: .*Close each quote"),
        (
            "delimited",
            "image,caption\n1.jpg,a dog, running\n",
            "line 2 has 3 cells, the header 2: put a caption that contains ',' in double quotes",
        ),
        ("delimited", "x" * 200_000, "line 1 is not a header: it has 200,000 characters"),
        ("delimited", "image,caption\n1.jpg,a\n".encode("utf-16")[:-3], "is not UTF-16"),
        ("jsonl", b'{"image": "caf\xe9"}', "line 1 is not UTF-8"),
        ("json", b'[\n{"image": "caf\xe9"}]', "line 2 is not UTF-8"),
        ("json", '[{"image": "a", "caption": "a \\ud83d dog"}]', "item 1: .* unpaired surrogate"),
        (
            "json",
            '[{"image": "a \\ud83d", "caption": "x"}]',
            "the name .* an unpaired surrogate",
        ),
        ("json", '[{"image": "a", "conversations": []}]', "item 1: no 'human' turn is followed"),
        ("parquet", b"nonsense", "it is not a complete Parquet file"),
        ("tokens", "a.jpg 0 A dog\n", "line 1: .* is not image#number, a tab, a caption"),
        ("json", "[{", "line 1 is not valid JSON"),
        ("json", "[" * 100_000, "nested too deeply"),
        ("json", '[{"image": "a", "caption": 3}]', "item 1: '3' is not text"),
        ("coco", '{"annotations": [{"caption": "x"}]}', "annotation 1: .* has no image_id"),
        ("coco", '{"images": [{"id": 1}], "annotations": []}', "has no file_name"),
        (
            "coco",
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 2}]}',
            "no image has the id 2",
        ),
        ("karpathy", '{"images": [{"sentences": []}]}', "image 1: .* has no filename"),
        ("karpathy", '{"images": [{"filename": "a", "sentences": [3]}]}', "image 1: .* not text"),
    ],
)
def test_what_is_broken_is_told_with_its_place(form, data, message):
    with pytest.raises(ValueError, match=message):
        rows(form, data)


@pytest.mark.parametrize(
    ("content", "form"), [(KARPATHY, "karpathy"), (COCO, "coco"), (LLAVA, "json"), ([], "json")]
)
def test_a_json_form_is_known_by_its_content(content, form):
    assert form_of_json(json.dumps(content).encode()) == form


@pytest.mark.parametrize("content", [{"a": 1}, 3, ["x"], {"images": []}, {"images": [1]}])
def test_other_json_is_told_with_what_would_do(content):
    with pytest.raises(ValueError, match="a JSON .* has an unknown format: expected Karpathy's"):
        form_of_json(json.dumps(content).encode())
