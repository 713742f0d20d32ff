//! Documents from files and folders.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use kiln::data::source::{Reason, Skips};
use std::io::Write;

fn write(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// `bytes` packed by gzip.
pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `bytes` packed by Zstandard.
pub fn zst(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// What lenient reading finds and passes over.
pub fn lenient(path: impl AsRef<Path>, limits: Limits) -> (Vec<Document>, Skips) {
    let mut documents = Sources::lenient(&[path], "text", limits).unwrap().documents();
    let all = documents.by_ref().map(|d| d.expect("lenient reading has no errors")).collect();
    (all, documents.skips().clone())
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
    write(&dir, "in/d.csv", "a,b");
    let sources = Sources::open(&[dir.path().join("in")], "text").unwrap();
    let all: Vec<String> = sources.documents().map(|d| d.unwrap().text).collect();
    assert_eq!(all, ["1", "2", "3"]);
    assert_eq!(sources.skipped(), [dir.path().join("in/d.csv")]);
    assert_eq!(sources.bytes(), 14);
    assert_eq!(sources.skips().counts, [(Reason::OtherKind, 1), (Reason::Hidden, 1)].into());

    assert_says(Sources::open(&[dir.path().join("in/d.csv")], "text"), &["d.csv", ".csv", ".jsonl"]);
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

#[test]
fn packed_files_and_pages_are_read_as_what_is_in_them() {
    let dir = TempDir::new().unwrap();
    write(&dir, "in/a.txt.gz", [gz(b"one<|endoftext|>"), gz(b"two")].concat()); // members follow each other
    write(&dir, "in/b.jsonl.zst", [zst(b"{\"text\":\"three\"}\n"), zst(b"{\"text\":\"four\"}")].concat());
    write(&dir, "in/c.html", "<title>x</title><p>five</p><script>no</script>six");
    write(&dir, "in/d.md.zst", zst("sieben\u{e9}".as_bytes()));
    write(&dir, "in/e.jsonl.gz", gz(b"{\"id\":\"x\",\"text\":\"eight\",\"n\":1}"));
    let sources = Sources::open(&[dir.path().join("in")], "text").unwrap();
    let all: Vec<Document> = sources.documents().map(|d| d.unwrap()).collect();
    let texts: Vec<&str> = all.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(texts, ["one", "two", "three", "four", "five\nsix", "sieben\u{e9}", "eight"]);
    assert_eq!((all[6].id.as_str(), &all[6].metadata["n"]), ("x", &1.into()));
    assert_eq!((all[3].line, all[3].source.as_path()), (2, dir.path().join("in/b.jsonl.zst").as_path()));
    let mut documents = sources.documents();
    documents.by_ref().for_each(drop);
    assert_eq!(documents.bytes(), sources.bytes());
}

#[test]
fn patterns_choose_files_below_a_folder() {
    let dir = TempDir::new().unwrap();
    for name in ["a.txt", "b.md", "x/c.txt", "x/y/d.txt", "x/y/e.jsonl", "x/.h/f.txt", "w/c.txt"] {
        write(&dir, name, if name.ends_with("jsonl") { "{\"text\":\"e\"}" } else { name });
    }
    let chosen = |pattern: &str| texts(dir.path().join(pattern)).unwrap();
    assert_eq!(chosen("**/*.txt"), ["a.txt", "w/c.txt", "x/c.txt", "x/y/d.txt"]);
    assert_eq!(chosen("*.txt"), ["a.txt"]);
    assert_eq!(chosen("x/**/*.txt"), ["x/c.txt", "x/y/d.txt"]);
    assert_eq!(chosen("[wx]/?.txt"), ["w/c.txt", "x/c.txt"]);
    assert_eq!(chosen("x/y/*"), ["x/y/d.txt", "e"]);
    assert_says(texts(dir.path().join("*.html")), &["no file matches", "*.html"]);
    assert_says(texts(dir.path().join("x/*/../../*.txt")), &["`..` after a wildcard"]);
    assert_says(texts(dir.path().join("[a.txt")), &["not a pattern"]);
    write(&dir, "[odd].txt", "its own name");
    assert_eq!(chosen("[odd].txt"), ["its own name"]);
}

/// Files of very different sizes, so that threads finish in another order than they began.
#[test]
fn documents_come_in_one_order_whatever_the_threads_do() {
    let dir = TempDir::new().unwrap();
    for file in 0..40 {
        let lines: String = (0..[3000, 1, 50][file % 3]).map(|n| format!("{{\"text\":\"{file} {n}\"}}\n")).collect();
        write(&dir, &format!("in/{file:02}.jsonl"), lines);
    }
    let read = |threads| {
        let limits = Limits { threads, document: 1 << 20, ..Limits::default() };
        lenient(dir.path().join("in"), limits).0.into_iter().map(|d| d.text).collect::<Vec<_>>()
    };
    let one = read(1);
    assert_eq!(one.len(), 14 * 3000 + 13 + 13 * 50);
    assert_eq!(one[3000], "1 0");
    for threads in [2, 5, 64] {
        assert_eq!(read(threads), one, "{threads} threads");
    }
    // Whoever stops early leaves nobody waiting.
    let sources = Sources::open(&[dir.path().join("in")], "text").unwrap();
    assert_eq!(sources.documents().take(3).count(), 3);
}

#[test]
fn lenient_reading_decodes_other_encodings_and_says_so() {
    let dir = TempDir::new().unwrap();
    let latin1 = |text: &str| text.chars().map(|c| c as u8).collect::<Vec<u8>>();
    let utf16: Vec<u8> =
        "\u{feff}{\"text\":\"é\"}\r\n{\"text\":\"ж\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    write(&dir, "in/a.txt", latin1("Die Straße ist schön, und über den Flüssen wächst Gras."));
    write(&dir, "in/b.jsonl", utf16);
    write(&dir, "in/c.html", latin1("<meta charset=\"iso-8859-7\"><p>\u{e1}\u{e2}\u{e3}"));
    write(&dir, "in/d.txt", b"caf\xc3\xa9, d\xc3\xa9j\xc3\xa0, \xff");
    write(&dir, "in/e.txt", "\u{feff}café");
    let (all, skips) = lenient(dir.path().join("in"), Limits::default());
    let found: Vec<_> = all.iter().map(|d| (d.text.as_str(), d.encoding.unwrap_or(""))).collect();
    assert_eq!(
        found,
        [
            ("Die Straße ist schön, und über den Flüssen wächst Gras.", "windows-1252"),
            ("é", "UTF-16LE"),
            ("ж", "UTF-16LE"),
            ("αβγ", "ISO-8859-7"),
            ("café, déjà, \u{fffd}", "UTF-8"),
            ("café", ""),
        ]
    );
    assert_eq!(skips.total(), 0);
}
