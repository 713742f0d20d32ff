//! Files that mean harm, or were harmed: each is passed over or repaired by lenient reading and counted under its reason,
//! is an error that names it where reading is strict, and costs neither a panic nor memory nor time without bounds.

use super::sources::{gz, lenient, zst};
use super::*;
use kiln::data::source::Reason;
use std::io::Write;
use std::time::Instant;

/// Small limits, so that small files reach them.
const LIMITS: Limits = Limits { document: 64 << 10, unpacked: 64 << 20, ratio: 200, memory: 64 << 20, threads: 2 };

/// What lenient reading must make of a file: the texts of its documents, and why the rest is passed over.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    texts: &'static [&'static str],
    reasons: &'static [Reason],
}

fn case(
    name: &'static str,
    bytes: impl Into<Vec<u8>>,
    texts: &'static [&'static str],
    reasons: &'static [Reason],
) -> Case {
    Case { name, bytes: bytes.into(), texts, reasons }
}

/// `bytes` without their last `n`.
fn cut(mut bytes: Vec<u8>, n: usize) -> Vec<u8> {
    bytes.truncate(bytes.len() - n);
    bytes
}

/// `bytes` with one bit changed.
fn flipped(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] ^= 0x40;
    bytes
}

/// Text that does not pack well.
fn noise(n: usize) -> Vec<u8> {
    let mut rng = Rng::new(3, Purpose::Test, 0, 0);
    (0..n).map(|_| b'a' + rng.below(26) as u8).collect()
}

fn cases() -> Vec<Case> {
    use Reason::*;
    let line = |text: &str| format!("{{\"text\":\"{text}\"}}\n");
    let lines = |bytes: &[u8]| [line("one").as_bytes(), bytes, line("two").as_bytes()].concat();
    let deep = |open: &str, n: usize| open.repeat(n);
    let nul_frame = |n: usize| zst(&vec![0; n]);
    vec![
        // Bombs.
        case("zeros.txt.gz", gz(&vec![0; 40 << 20]), &[], &[Binary]),
        case("blanks.txt.gz", gz(&vec![b' '; 40 << 20]), &[], &[Bomb]),
        case("blanks.txt.zst", zst(&vec![b' '; 40 << 20]), &[], &[Bomb]),
        case("lines.jsonl.gz", gz(&b"               \n".repeat(40 << 16)), &[], &[Bomb]),
        case("many-members.txt.gz", gz(&vec![b'x'; 1 << 20]).repeat(40), &[], &[Bomb]),
        case("many-frames.txt.zst", zst(&vec![b'x'; 1 << 20]).repeat(40), &[], &[Bomb]),
        case("first-good.jsonl.gz", gz(&[line("one").as_bytes(), &vec![b' '; 40 << 20]].concat()), &["one"], &[Bomb]),
        case("nested.txt.gz", gz(&gz(&vec![b' '; 1 << 20])), &[], &[Binary]),
        case("window.txt.zst", [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8], &[1, 0, 0][..]].concat(), &[], &[Bomb]),
        case("empty-frames.txt.zst", nul_frame(0).repeat(10_000), &[], &[]),
        case("skippable.txt.zst", [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0].repeat(10_000), &[], &[]),
        // Packed files that are damaged.
        case("cut.txt.gz", cut(gz(&noise(5000)), 1), &[], &[Damaged]),
        case("half.txt.gz", cut(gz(&noise(5000)), 1500), &[], &[Damaged]),
        case("cut.jsonl.gz", cut(gz(&[line("one").as_bytes(), &noise(50_000)].concat()), 9), &["one"], &[Damaged]),
        case("checksum.txt.gz", flipped(gz(&noise(5000)), 3000), &[], &[Damaged]),
        case(
            "garbage-behind.jsonl.gz",
            [gz(line("one").as_bytes()), b"garbage".to_vec()].concat(),
            &["one"],
            &[Damaged],
        ),
        case("header-only.txt.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03".as_slice(), &[], &[Damaged]),
        case("no.txt.gz", b"plain text".as_slice(), &[], &[Damaged]),
        case(
            "name.txt.gz",
            [b"\x1f\x8b\x08\x08\0\0\0\0\0\x03".to_vec(), vec![b'a'; 1 << 20]].concat(),
            &[],
            &[Damaged],
        ),
        case("cut.txt.zst", cut(zst(&noise(5000)), 1), &[], &[Damaged]),
        case("half.txt.zst", cut(zst(&noise(5000)), 1500), &[], &[Damaged]),
        case("checksum.txt.zst", flipped(zst(&noise(5000)), 2000), &[], &[Damaged]),
        case("magic.txt.zst", flipped(zst(b"text"), 0), &[], &[Damaged]),
        case(
            "garbage-behind.jsonl.zst",
            [zst(line("one").as_bytes()), b"garbage".to_vec()].concat(),
            &["one"],
            &[Damaged],
        ),
        case("skips-too-far.txt.zst", [0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 1], &[], &[Damaged]),
        case("dictionary.txt.zst", [0x28, 0xb5, 0x2f, 0xfd, 0x01, 0x58, 0x07, 1, 0, 0], &[], &[Damaged]),
        case("reserved-block.txt.zst", [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x07, 0, 0], &[], &[Damaged]),
        case("empty.txt.gz", b"".as_slice(), &[], &[Damaged]),
        case("empty.txt.zst", b"".as_slice(), &[], &[]),
        // Lines and documents without end.
        case("long-line.jsonl", lines(&[&vec![b'x'; 70 << 10][..], b"\n"].concat()), &["one", "two"], &[TooLong]),
        case("long-text.jsonl", lines(line(&"y".repeat(70 << 10)).as_bytes()), &["one", "two"], &[TooLong]),
        case("long.txt", vec![b'x'; 65 << 10], &[], &[TooLong]),
        case("long.html", [b"<p>".to_vec(), vec![b'x'; 65 << 10]].concat(), &[], &[TooLong]),
        case("long-then-good.md", [&vec![b'x'; 70 << 10][..], b"<|endoftext|>good"].concat(), &["good"], &[TooLong]),
        // JSON.
        case("deep.jsonl", lines(deep("[", 50_000).as_bytes()), &["one"], &[NotJson]),
        case(
            "deep-field.jsonl",
            lines(format!("{{\"a\":{}\n", deep("[", 50_000)).as_bytes()),
            &["one", "two"],
            &[NotJson],
        ),
        case(
            "deep-objects.jsonl",
            lines(format!("{}\n", deep("{\"a\":", 10_000)).as_bytes()),
            &["one", "two"],
            &[NotJson],
        ),
        case(
            "deep-closed.jsonl",
            lines(format!("{{\"text\":\"t\",\"x\":{}{}}}\n", deep("[", 20_000), deep("]", 20_000)).as_bytes()),
            &["one", "two"],
            &[NotJson],
        ),
        case("nonsense.jsonl", lines(b"nonsense\n"), &["one", "two"], &[NotJson]),
        case("unclosed.jsonl", lines(b"{\"text\":\"three\n"), &["one", "two"], &[NotJson]),
        case("two-on-a-line.jsonl", lines(b"{\"text\":\"a\"}{\"text\":\"b\"}\n"), &["one", "two"], &[NotJson]),
        case("lone-surrogate.jsonl", lines(b"{\"text\":\"\\ud800\"}\n"), &["one", "two"], &[NotJson]),
        case("control.jsonl", lines(b"{\"text\":\"a\x01b\"}\n"), &["one", "two"], &[NotJson]),
        case("number.jsonl", lines(b"{\"text\":1e999}\n"), &["one", "two"], &[NoText]),
        case("huge-number.jsonl", lines(b"{\"text\":\"t\",\"n\":1e999}\n"), &["one", "two"], &[NotJson]),
        case("no-text.jsonl", lines(b"{\"body\":\"t\"}\n"), &["one", "two"], &[NoText]),
        case("list.jsonl", lines(b"[\"text\"]\n"), &["one", "two"], &[NoText]),
        case("null.jsonl", lines(b"null\n"), &["one", "two"], &[NoText]),
        case("twice.jsonl", lines(b"{\"text\":\"a\",\"text\":\"b\"}\n"), &["one", "b", "two"], &[]),
        case("nul-lines.jsonl", lines(&[&[0; 100][..], b"\n"].concat()), &["one", "two"], &[NotJson]),
        case("cr-lines.jsonl", b"{\"text\":\"one\"}\r\n\r\n{\"text\":\"two\"}\r\n".as_slice(), &["one", "two"], &[]),
        case("latin.jsonl", lines(b"{\"text\":\"caf\xe9 cr\xe8me\"}\n"), &["one", "café crème", "two"], &[]),
        case(
            "truncated-utf8.jsonl",
            lines("{\"text\":\"ééé\u{1f600}\"}\n".as_bytes()),
            &["one", "ééé\u{1f600}", "two"],
            &[],
        ),
        // Text.
        case("nuls.txt", vec![0; 5000], &[], &[Binary]),
        case("program.txt", [b"\x7fELF".to_vec(), [0, 1, 2, 3].repeat(500)].concat(), &[], &[Binary]),
        case("one-nul.txt", [vec![b'a'; 500], vec![0], vec![b'b'; 500]].concat(), &["*"], &[]),
        case("bad-utf8.txt", b"\xc3\xa9\xc3\xa9 \xff\xfe \xc3".as_slice(), &["éé \u{fffd}\u{fffd} \u{fffd}"], &[]),
        case("surrogates.txt", b"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9 \xed\xa0\x80".as_slice(), &["*"], &[]),
        case("overlong.txt", b"\xc3\xa9\xc3\xa9\xc3\xa9 \xc0\xaf".as_slice(), &["*"], &[]),
        case("odd-utf16.txt", b"\xff\xfea\0b\0\xd8\0c".as_slice(), &["*"], &[]),
        case("utf32.txt", b"\xff\xfe\0\0a\0\0\0b\0\0\0".as_slice(), &[], &[Binary]),
        case("mark-only.txt", b"\xef\xbb\xbf".as_slice(), &[], &[]),
        case("markers-only.txt", "<|endoftext|>".repeat(4000), &[], &[]),
        case("half-markers.txt", "<|endoftext|".repeat(4000), &["*"], &[]),
        case("angles.html", "<".repeat(60_000), &["*"], &[]),
        case("deep.html", "<div>".repeat(10_000) + "deep", &["deep"], &[]),
        case("script.html", "<script>".to_owned() + &"<p>x</p>".repeat(1000), &[], &[]),
        case("attributes.html", "<p ".to_owned() + &"a=\"b\" ".repeat(9000) + ">text", &["text"], &[]),
        case("entities.html", "&#x110000;&#0;&#xd800;&notit;&amp".to_owned(), &["*"], &[]),
        case("comment.html", "text<!--".to_owned() + &"-".repeat(60_000), &["text"], &[]),
    ]
}

#[test]
fn what_is_harmful_is_counted_by_reason_and_what_is_good_beside_it_is_kept() {
    let dir = TempDir::new().unwrap();
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    for case in &cases {
        let path = dir.path().join(case.name);
        std::fs::write(&path, &case.bytes).unwrap();
        let start = Instant::now();
        let (documents, skips) = lenient(&path, LIMITS);
        let texts: Vec<&str> = documents.iter().map(|d| d.text.as_str()).collect();
        if case.texts == ["*"] {
            assert!(texts.len() == 1 && !texts[0].is_empty(), "{}: {texts:?}", case.name);
        } else {
            assert_eq!(texts, case.texts, "{}: {:?}", case.name, skips.list);
        }
        let reasons: Vec<Reason> = skips.counts.keys().copied().collect();
        assert_eq!(reasons, case.reasons, "{}: {:?}", case.name, skips.list);
        assert!(skips.list.iter().all(|s| s.path == path), "{}: {:?}", case.name, skips.list);
        assert!(start.elapsed().as_secs() < 20, "{} took {:?}", case.name, start.elapsed());
        // Strictly, the first of it is an error, which says what to do. Other encodings and binary files are none of UTF-8.
        let strict: Result<Vec<_>> = Sources::open(&[&path], "text").unwrap().documents().collect();
        match strict {
            Err(error) => assert!(error.to_string().contains(case.name) && error.hint().is_some(), "{error}"),
            // Strict reading takes larger documents, and NULs, for text.
            Ok(_) => {
                assert!(case.reasons.iter().all(|r| matches!(r, Reason::TooLong | Reason::Binary)), "{}", case.name)
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_gigabyte_on_one_line_takes_no_memory() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.jsonl");
    let mut file = std::fs::File::create(&path).unwrap();
    // A hole in the file, which reads as NULs.
    file.write_all(b"{\"text\":\"before\"}\n").unwrap();
    file.set_len(1 << 30).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"\n{\"text\":\"behind\"}\n").unwrap();
    drop(file);
    let before = peak();
    let (documents, skips) = lenient(&path, LIMITS);
    assert_eq!(documents.iter().map(|d| d.text.as_str()).collect::<Vec<_>>(), ["before", "behind"]);
    assert_eq!(skips.counts, [(Reason::TooLong, 1)].into());
    if let (Some(before), Some(after)) = (before, peak()) {
        // Other tests run in this process too.
        assert!(after - before < 512 << 20, "{} MiB", (after - before) >> 20);
    }
}

/// The most memory that this process has held, where the system tells.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// A folder with one good file among what is no file, leads out, or may not be read.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_never_opened_and_no_link_leads_out() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    let dir = TempDir::new().unwrap();
    let inside = dir.path().join("in");
    std::fs::create_dir_all(inside.join("sub")).unwrap();
    std::fs::write(dir.path().join("secret.txt"), "outside").unwrap();
    std::fs::write(inside.join("good.txt"), "good").unwrap();
    let made = std::process::Command::new("mkfifo").arg(inside.join("pipe.txt")).status().unwrap();
    assert!(made.success());
    let _socket = UnixListener::bind(inside.join("socket.txt")).unwrap();
    symlink("/dev/zero", inside.join("device.txt")).unwrap();
    symlink(dir.path().join("secret.txt"), inside.join("out.txt")).unwrap();
    symlink("../secret.txt", inside.join("relative.txt")).unwrap();
    symlink(dir.path(), inside.join("sub/up.txt")).unwrap();
    symlink("nowhere", inside.join("broken.txt")).unwrap();
    symlink("loop.txt", inside.join("loop.txt")).unwrap();
    symlink(inside.join("good.txt"), inside.join("sub/again.txt")).unwrap();
    std::fs::write(inside.join(".hidden.txt"), "hidden").unwrap();
    std::fs::write(inside.join("closed.txt"), "closed").unwrap();
    std::fs::set_permissions(inside.join("closed.txt"), PermissionsExt::from_mode(0o000)).unwrap();
    let (documents, skips) = lenient(&inside, LIMITS);
    let mut texts: Vec<&str> = documents.iter().map(|d| d.text.as_str()).collect();
    if texts.contains(&"closed") {
        println!("skipped in part: this user may read everything");
        texts.retain(|text| *text != "closed");
    } else {
        assert_eq!(skips.counts[&Reason::Unreadable], 1);
    }
    assert_eq!(texts, ["good"]);
    assert_eq!(skips.counts[&Reason::NotAFile], 2, "{:?}", skips.list);
    assert_eq!(skips.counts[&Reason::Link], 6, "{:?}", skips.list);
    assert_eq!(skips.counts[&Reason::Hidden], 1);
    // Named by the caller, they are errors; nothing waits for the pipe.
    for name in ["pipe.txt", "socket.txt", "device.txt"] {
        assert_says(Sources::open(&[inside.join(name)], "text"), &[name, "regular file"]);
        assert_says(Sources::lenient(&[inside.join(name)], "text", LIMITS), &[name, "regular file"]);
    }
    assert_says(Sources::open(&[&inside], "text"), &[".txt"]);
}

/// A file that becomes a pipe, or a link that leads out, between the walk and the reading.
#[cfg(unix)]
#[test]
fn a_file_that_is_replaced_after_the_walk_is_not_followed() {
    let dir = TempDir::new().unwrap();
    let inside = dir.path().join("in");
    std::fs::create_dir(&inside).unwrap();
    for name in ["a.txt", "b.txt", "c.txt"] {
        std::fs::write(inside.join(name), name).unwrap();
    }
    std::fs::write(dir.path().join("secret.txt"), "outside").unwrap();
    let sources = Sources::lenient(&[&inside], "text", LIMITS).unwrap();
    std::fs::remove_file(inside.join("a.txt")).unwrap();
    std::fs::remove_file(inside.join("b.txt")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(inside.join("a.txt")).status().unwrap().success());
    std::os::unix::fs::symlink(dir.path().join("secret.txt"), inside.join("b.txt")).unwrap();
    let mut documents = sources.documents();
    let texts: Vec<String> = documents.by_ref().map(|d| d.unwrap().text).collect();
    assert_eq!(texts, ["c.txt"]);
    assert_eq!(documents.skips().total(), 2, "{:?}", documents.skips());
}

#[test]
fn folders_nested_as_deep_as_they_can_be_are_walked() {
    let dir = TempDir::new().unwrap();
    let mut path = dir.path().to_owned();
    while path.as_os_str().len() < 3900 {
        path.push("d");
        if std::fs::create_dir(&path).is_err() {
            path.pop();
            break;
        }
    }
    std::fs::write(path.join("a.txt"), "deep").unwrap();
    assert_eq!(lenient(dir.path(), LIMITS).0.len(), 1);
}

#[cfg(not(feature = "parquet"))]
#[test]
fn tables_need_the_feature_and_the_error_says_so() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    std::fs::write(&path, "PAR1").unwrap();
    assert_says(Sources::open(&[&path], "text"), &["a.parquet", "--features parquet", ".jsonl"]);
    std::fs::write(dir.path().join("b.txt"), "b").unwrap();
    let (documents, skips) = lenient(dir.path(), LIMITS);
    assert_eq!((documents.len(), skips.counts), (1, [(Reason::OtherKind, 1)].into()));
}

/// The program, over a folder of all of these: it ends well, says what it passed over, and writes nothing elsewhere.
#[test]
fn cleaning_a_folder_of_them_ends_well_and_says_what_was_passed_over() {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    for case in cases() {
        std::fs::write(dir.path().join("in").join(case.name), case.bytes).unwrap();
    }
    let run = |limit: Option<u32>| {
        // A limit on the size of files stands in for a disk that is full.
        let limit = limit.map_or(String::new(), |blocks| format!("ulimit -f {blocks};"));
        let script = format!(
            "trap '' XFSZ; {limit} exec \"$0\" data clean in --out out --mem 256MB --max-document 65536 --json"
        );
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_kiln")]).current_dir(dir.path());
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!errors.contains("panicked") && !errors.contains("overflow"), "{errors}");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), errors)
    };
    if cfg!(target_os = "linux") {
        for blocks in [0, 1, 2, 4] {
            let (code, _, errors) = run(Some(blocks));
            // It may be that little is enough.
            if code == Some(0) {
                break;
            }
            assert_eq!(code, Some(1), "{errors}");
            assert!(errors.contains("hint") && !dir.path().join("out/documents.jsonl.zst").exists(), "{errors}");
        }
    }
    let (code, out, errors) = run(None);
    assert_eq!(code, Some(0), "{errors}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let skipped = report["skipped"].as_object().unwrap();
    for reason in [Reason::Bomb, Reason::Damaged, Reason::TooLong, Reason::NotJson, Reason::NoText, Reason::Binary] {
        assert!(skipped[reason.describe()].as_u64() >= Some(2), "{reason:?}: {skipped:?}");
    }
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["in", "out"]);
}

/// A table of texts, with names and numbers beside them; `packed` by Snappy.
#[cfg(feature = "parquet")]
fn table(rows: usize, packed: bool) -> Vec<u8> {
    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    let schema = "message t { required binary id (UTF8); optional binary text (UTF8); required int64 n; }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let compression = if packed { Compression::SNAPPY } else { Compression::UNCOMPRESSED };
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let bytes = |text: String| ByteArray::from(text.into_bytes());
    let mut column = group.next_column().unwrap().unwrap();
    let ids: Vec<_> = (0..rows).map(|n| bytes(format!("row {n}"))).collect();
    column.typed::<ByteArrayType>().write_batch(&ids, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    // Every third has no text.
    let levels: Vec<i16> = (0..rows).map(|n| i16::from(n % 3 != 2)).collect();
    let texts: Vec<_> = (0..rows).filter(|n| n % 3 != 2).map(|n| bytes(format!("text é {n}"))).collect();
    column.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&(0..rows as i64).collect::<Vec<_>>(), None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

#[cfg(feature = "parquet")]
#[test]
fn tables_give_a_document_a_row_and_damaged_ones_no_panic() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    for packed in [false, true] {
        let whole = table(1000, packed);
        std::fs::write(&path, &whole).unwrap();
        let all: Vec<Document> = Sources::open(&[&path], "text").unwrap().documents().map(|d| d.unwrap()).collect();
        assert_eq!(all.len(), 667);
        assert_eq!((all[2].text.as_str(), all[2].id.as_str(), &all[2].metadata["n"]), ("text é 3", "row 3", &3.into()));
        assert_eq!(all[2].line, 4);
        assert_says(
            Sources::open(&[&path], "body").unwrap().documents().collect::<Result<Vec<_>>>(),
            &["a.parquet", "\"id\", \"text\", \"n\"", "--text-field"],
        );
        assert_says(Sources::open(&[&path], "n").unwrap().documents().collect::<Result<Vec<_>>>(), &["row 1", "text"]);
        for cut in [0, 1, 3, 4, 8, 100, whole.len() / 2, whole.len() - 9, whole.len() - 8, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (documents, skips) = lenient(&path, LIMITS);
            assert_eq!((documents.len(), skips.counts), (0, [(Reason::Damaged, 1)].into()), "cut at {cut}");
        }
        // One bit at a time: what is given is text, and nothing panics.
        let mut rng = Rng::new(5, Purpose::Test, 0, 0);
        for _ in 0..500 {
            let at = rng.below(whole.len() as u32) as usize;
            std::fs::write(&path, flipped(whole.clone(), at)).unwrap();
            lenient(&path, LIMITS);
        }
    }
}
