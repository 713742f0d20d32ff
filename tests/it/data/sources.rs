//! Documents from files and folders.

use super::*;

fn write(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn texts(path: impl AsRef<Path>) -> Result<Vec<String>> {
    Sources::open(&[path], "text")?.documents().map(|d| Ok(d?.text)).collect()
}

#[test]
fn a_file_is_a_document_unless_it_is_marked() {
    let dir = TempDir::new().unwrap();
    assert_eq!(texts(write(&dir, "a.txt", "one > two\n<|end\n")).unwrap(), ["one > two\n<|end\n"]);
    let marked = "first\n<|endoftext|>\nsecond <b>bold</b>\n<|endoftext|>\r\n<|endoftext|>third";
    let path = write(&dir, "b.md", marked);
    assert_eq!(texts(&path).unwrap(), ["first\n", "second <b>bold</b>\n", "third"]);
    let lines: Vec<u64> = Sources::open(&[path], "text").unwrap().documents().map(|d| d.unwrap().line).collect();
    assert_eq!(lines, [1, 3, 5]);
    assert_eq!(texts(write(&dir, "bom.txt", "\u{feff}text")).unwrap(), ["text"]);
    assert_eq!(texts(write(&dir, "empty.txt", "")).unwrap(), [""; 0]);
}

#[test]
fn json_lines_give_the_named_field() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "a.jsonl", "{\"text\":\"a\\nb\",\"id\":1}\n\n{\"id\":2,\"text\":\"\"}\n{\"text\":\"é\"}");
    assert_eq!(texts(&path).unwrap(), ["a\nb", "é"]);
    let path = write(&dir, "b.jsonl", "{\"text\":\"a\"}\n{\"body\":\"b\",\"id\":1}\n");
    assert_says(texts(&path), &["b.jsonl", "line 2", "\"text\"", "\"body\", \"id\"", "--text-field"]);
    let by_name: Vec<_> =
        Sources::open(&[write(&dir, "c.jsonl", "{\"body\":\"b\"}")], "body").unwrap().documents().collect();
    assert_eq!(by_name[0].as_ref().unwrap().text, "b");
    assert_says(texts(write(&dir, "d.jsonl", "{\"text\": 3}")), &["line 1", "a number"]);
    assert_says(texts(write(&dir, "e.jsonl", "{\"text\":\"a\"}\n{\"text\": \"b\n")), &["line 2, column 11"]);
    assert_says(texts(write(&dir, "f.jsonl", "[1]")), &["line 1", "a list"]);
    let deep = "[".repeat(1_000_000);
    assert_says(texts(write(&dir, "g.jsonl", deep)), &["line 1", "recursion"]);
}

#[test]
fn invalid_text_is_located() {
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "a.txt", b"one<|endoftext|>\ntw\xffo");
    assert_says(texts(path), &["a.txt", "byte 19", "0xff", "UTF-8"]);
    let path = write(&dir, "a.jsonl", b"{\"text\":\"a\"}\n{\"text\":\"\xc3(\"}");
    assert_says(texts(path), &["a.jsonl", "byte 22", "0xc3"]);
}

#[test]
fn nothing_follows_an_error() {
    let dir = TempDir::new().unwrap();
    write(&dir, "in/a.txt", b"\xff");
    write(&dir, "in/b.txt", "fine");
    assert_eq!(Sources::open(&[dir.path()], "text").unwrap().documents().count(), 1);
}

#[test]
fn folders_are_read_in_order_and_kept_to() {
    let dir = TempDir::new().unwrap();
    write(&dir, "in/b.txt", "2");
    write(&dir, "in/a/z.jsonl", "{\"text\":\"1\"}");
    write(&dir, "in/c.md", "3");
    write(&dir, "in/.git/x.txt", "hidden");
    write(&dir, "in/d.txt.gz", "packed");
    let sources = Sources::open(&[dir.path().join("in")], "text").unwrap();
    let all: Vec<String> = sources.documents().map(|d| d.unwrap().text).collect();
    assert_eq!(all, ["1", "2", "3"]);
    assert_eq!(sources.skipped(), [dir.path().join("in/d.txt.gz")]);
    assert_eq!(sources.bytes(), 14);

    let packed = message(Sources::open(&[dir.path().join("in/d.txt.gz")], "text"));
    assert!(packed.contains("compressed"), "{packed}");
    assert_says(Sources::open(&[dir.path().join("absent")], "text"), &["absent"]);
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    assert_says(Sources::open(&[dir.path().join("empty")], "text"), &["no text"]);
}

#[cfg(unix)]
#[test]
fn links_out_of_a_folder_are_refused() {
    let dir = TempDir::new().unwrap();
    write(&dir, "in/a.txt", "1");
    let outside = write(&dir, "secret.txt", "2");
    // A link inside is its target under another name, and even a loop ends.
    std::os::unix::fs::symlink(dir.path().join("in/a.txt"), dir.path().join("in/b.txt")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("in"), dir.path().join("in/loop")).unwrap();
    assert_eq!(texts(dir.path().join("in")).unwrap(), ["1"]);
    std::os::unix::fs::symlink(&outside, dir.path().join("in/c.txt")).unwrap();
    assert_says(texts(dir.path().join("in")), &["c.txt", "secret.txt"]);
}
