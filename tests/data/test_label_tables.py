"""Classes from CSV files."""

from pathlib import Path

import pytest

from metaray.data.file_tree import FileTree
from metaray.data.label_tables import read_labels
from metaray.errors import InputError

PLAIN = "file,label\n1.png,cat\n2.png,dog\n3.png,cat\n"
CLASSES = {"cat": ["1.png", "3.png"], "dog": ["2.png"]}


def tree(*names: str, **tables: str) -> FileTree:
    files = [(name, bytes) for name in names or ("1.png", "2.png", "3.png")]
    return FileTree(Path("here"), [*files, *((f"{name}.csv", text.encode) for name, text in tables.items())])


def table(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace("\n", "\r\n"),
        "\ufeff" + PLAIN,
        PLAIN.encode("utf-16"),
        "\n" + PLAIN + ",\n\n",
        '"File Name","Class"\n"1.png","cat"\n2.png, dog\n3.png,cat\n',
        "image_id,label\n1,cat\n2,dog\n3,cat\n",
        "path,species\nC:\\data\\images\\1.png,cat\n/data/images/2.png,dog\n./3.png,cat\n",
        "y,filename,age\ncat,1.png,3\ndog,2.png,4\ncat,3.png,\n",
    ],
)
def test_tables_as_people_write_them(tmp_path: Path, text: str | bytes) -> None:
    found = read_labels(tree(), [table(tmp_path, text)])
    assert (found.classes, found.given, found.notes) == (CLASSES, {}, ())


def test_a_file_may_be_written_with_fewer_folders_than_it_lies_in(tmp_path: Path) -> None:
    images = tree("images/a/1.png", "images/b/1.png", "images/2.jpg")
    found = read_labels(images, [table(tmp_path, "file,label\na/1.png,cat\nb/1,dog\n2,elk\n")])
    assert found.classes == {"cat": ["images/a/1.png"], "dog": ["images/b/1.png"], "elk": ["images/2.jpg"]}
    with pytest.raises(InputError, match=r"line 2: '1.png' may be 'images/a/1.png', 'images/b/1.png' in here"):
        read_labels(images, [table(tmp_path, "file,label\n1.png,cat\n")])


def test_three_tables_give_the_splits(tmp_path: Path) -> None:
    tables = {"train": "1.png,cat\n2.png,dog\n", "val": "3.png,elk\n", "test": "4.png,fox\n"}
    paths = [table(tmp_path, f"filename,label\n{rows}", f"{name}.csv") for name, rows in tables.items()]
    images = tree("1.png", "2.png", "3.png", "4.png")
    for given in (paths, [tmp_path]):
        found = read_labels(images, given)
        assert found.given == {"meta-train": ["cat", "dog"], "meta-val": ["elk"], "meta-test": ["fox"]}
    assert read_labels(images, paths).by == "the tables train.csv, val.csv, test.csv"
    assert read_labels(images, [paths[0]]).given == {}


def test_a_column_gives_the_splits(tmp_path: Path) -> None:
    text = "file,label,split\n1.png,cat,train\n2.png,dog,Test\n3.png,elk,valid\n"
    found = read_labels(tree(), [table(tmp_path, text)])
    assert found.given == {"meta-train": ["cat"], "meta-test": ["dog"], "meta-val": ["elk"]}
    assert found.by == "the splits in the table"


def test_unusual_columns_and_a_table_inside_the_archive(tmp_path: Path) -> None:
    text = "nr,dx,fold,label\n1,cat,train,0\n2,dog,train,0\n3,elk,test,0\n"
    found = read_labels(tree("1.png", "2.png", "3.png", meta=text), [Path("meta.csv")], columns=["nr", "dx", "fold"])
    assert found.given == {"meta-train": ["cat", "dog"], "meta-test": ["elk"]}


def test_images_without_a_row_are_said(tmp_path: Path) -> None:
    found = read_labels(tree("1.png", "2.png", "3.png", "4.png", "5.png", "x.txt"), [table(tmp_path, PLAIN)])
    assert found.notes == ("passed over: 2 images without a row (4.png, 5.png)",)


def test_another_encoding(tmp_path: Path) -> None:
    path = table(tmp_path, "file,label\n1.png,caf\u00e9\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"labels\.csv: not a text in UTF-8; --encoding names another"):
        read_labels(tree(), [path])
    assert list(read_labels(tree(), [path], encoding="cp1252").classes) == ["caf\u00e9"]


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("file,label\n1.png,cat\n9.png,dog\n8.png,dog\n", "", "line 3: no file '9.png' in here; 2 of 3 are missing"),
        ("file,label\n1.png,cat\n./1.png,dog\n", "", "line 3: '1.png' stands in "),
        ("file,label\n1.png,cat\n1,cat\n", "", "labels.csv, line 2 already; give each file one row"),
        ("file,label\n1.png,\n", "", "line 2: no label"),
        ("file,label\n ,cat\n", "", "line 2: no file"),
        ("file,label\n1.png,cat,3\n", "", "line 2: 3 cells in a table of 2 columns"),
        ('file,label\n1.png,"a\nb"\n', "", "line 3: the name 'a\\nb' holds the control character"),
        ('file,label\n1.png,"a\n', "", "not a CSV file"),
        ("file,label\n", "", "no rows below its header 'file,label'"),
        ("", "", "its first line '' does not name the columns of the file (file, filename, ...)"),
        ("1.png,cat\n2.png,dog\n", "", "its first line '1.png,cat' does not name the columns"),
        ("file,label,label\n1.png,cat,dog\n", "", "has the column 'label' twice"),
        ("file,label,class\n1.png,0,dog\n", "", "'label' and 'class' may both be the column of classes; say which"),
        ("file,label,split\n1.png,cat,holdout\n", "", "line 2: the split 'holdout' is none of train, val and test"),
        (PLAIN, "file", "--columns 'file': give the columns of file and class"),
        (PLAIN, "file,kind", "does not name the columns of file and kind"),
        (PLAIN, "file,label,part", "lacks the column 'part'; its columns are file, label"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, text: str, columns: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        read_labels(tree(), [table(tmp_path, text)], columns=columns.split(",") if columns else ())
    assert message in str(refused.value)


def test_tables_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: can't read the labels: No such file"):
        read_labels(tree(), [tmp_path / "none.csv"])
    with pytest.raises(InputError, match="a folder without train.csv, val.csv and test.csv"):
        read_labels(tree(), [tmp_path])


def test_a_column_of_superclasses_gives_the_groups(tmp_path: Path) -> None:
    text = "file,label,Super Category\n1.png,cat,pets\n2.png,dog,pets\n3.png,elk,game\n"
    assert read_labels(tree(), [table(tmp_path, text)]).groups == {"cat": "pets", "dog": "pets", "elk": "game"}
    assert read_labels(tree(), [table(tmp_path, PLAIN)]).groups is None


def test_a_column_of_groups_by_name(tmp_path: Path) -> None:
    text = "file,label,domain\n1.png,cat,pets\n2.png,dog,pets\n3.png,elk,game\n"
    path, columns = table(tmp_path, text), ["file", "label", "", "domain"]
    found = read_labels(tree(), [path], columns=columns)
    assert found.groups == {"cat": "pets", "dog": "pets", "elk": "game"} and found.given == {}
    assert read_labels(tree(), [path]).groups is None, "a domain may as well be one of images"


def test_classes_that_are_in_two_groups(tmp_path: Path) -> None:
    text = "file,label,superclass\n1.png,cat,pets\n2.png,cat,wild\n3.png,elk,wild\n"
    path = table(tmp_path, text)
    assert read_labels(tree(), [path]).groups is None
    with pytest.raises(InputError, match=r"line 3: the class 'cat' has the group 'wild', but 'pets' in .*line 2"):
        read_labels(tree(), [path], columns=["file", "label", "", "superclass"])
    path = table(tmp_path, text.replace("wild", ""))
    with pytest.raises(InputError, match="line 3: no group"):
        read_labels(tree(), [path], columns=["file", "label", "", "superclass"])
