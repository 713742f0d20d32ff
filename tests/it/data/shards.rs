//! Shards: what is written is what is read, and faults are named.

use super::*;

fn write(path: &Path, format: ShardFormat, vocab: usize, tokens: &[u32]) {
    let mut writer = ShardWriter::create(path, format, vocab).unwrap();
    tokens.chunks(7).for_each(|chunk| writer.push(chunk).unwrap());
    writer.finish().unwrap();
}

#[test]
fn what_is_written_is_read() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.bin");
    for (format, vocab, size) in [
        (ShardFormat::Llmc, 1 << 16, HEADER + 2 * 1000),
        (ShardFormat::Llmc, (1 << 16) + 1, HEADER + 4 * 1000),
        (ShardFormat::Nanogpt, 1 << 16, 2 * 1000),
    ] {
        let mut rng = Rng::new(1, Purpose::Test, 0, 0);
        let tokens: Vec<u32> = (0..1000).map(|_| rng.below(vocab as u32)).collect();
        write(&path, format, vocab, &tokens);
        assert_eq!(std::fs::metadata(&path).unwrap().len() as usize, size);
        let shard = Shard::open(&path, vocab).unwrap();
        assert_eq!((shard.len(), shard.format()), (1000, format));
        let mut read = vec![0; 300];
        shard.get(500..800, &mut read);
        assert!(read.iter().zip(&tokens[500..]).all(|(&a, &b)| a as u32 == b));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn headers_are_llmcs() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.bin");
    for (vocab, head) in [(50257, [20240520, 1, 3]), (128256, [20240801, 7, 3])] {
        write(&path, ShardFormat::Llmc, vocab, &[5, 6, 50256]);
        let bytes = std::fs::read(&path).unwrap();
        let fields: Vec<i32> = bytes[..HEADER].chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(fields[..3], head);
        assert!(fields[3..].iter().all(|&f| f == 0));
    }
    assert_says(
        ShardWriter::create(&path, ShardFormat::Nanogpt, 70_000).map(drop),
        &["65,536", "70000", "--format llmc"],
    );
}

#[test]
fn faults_are_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.bin");
    write(&path, ShardFormat::Llmc, 100, &(0..100).collect::<Vec<_>>());
    let good = std::fs::read(&path).unwrap();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        Shard::open(&path, 100).map(drop)
    };
    assert!(with(&|_| ()).is_ok());
    assert_says(with(&|b| b[4] = 9), &["a.bin", "version", "expected 1", "found 9"]);
    assert_says(with(&|b| b.truncate(HEADER + 150)), &["number of tokens", "75 tokens", "found 100"]);
    assert_says(with(&|b| b.truncate(HEADER)), &["number of tokens", "found 100"]);
    assert_says(with(&|b| b.truncate(12)), &["number of tokens"]);
    assert_says(with(&|b| b.truncate(4)), &["version"]);
    assert_says(with(&|b| b.extend([0; 2])), &["101 tokens", "found 100"]);
    assert_says(with(&|b| b[8..12].fill(0xff)), &["number of tokens", "found -1"]);
    assert_says(with(&|b| b.clear()), &["size", "0 bytes"]);
    assert_says(with(&|b| *b = b"not tokens at all".to_vec()), &["20240520", "17 bytes", "even"]);
    assert_says(with(&|b| b[HEADER + 40] = 100), &["byte 1064 (token 20)", "below 100", "found 100"]);
    // Without the magic number the header's bytes are tokens, and too large.
    assert_says(with(&|b| b[3] = 0xff), &["byte 0 (token 0)", "below 100"]);
    assert_says(Shard::open(dir.path(), 100).map(drop), &["regular file", "a folder"]);
    assert_says(Shard::open(dir.path().join("absent"), 100).map(drop), &["absent"]);
}

#[test]
fn a_bad_token_is_found_in_a_large_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.bin");
    let mut tokens = vec![7; 3_000_000];
    tokens[2_500_000] = 300;
    tokens[2_900_000] = 301;
    write(&path, ShardFormat::Nanogpt, 1000, &tokens);
    assert!(Shard::open(&path, 301).is_err());
    assert_says(Shard::open(&path, 256).map(drop), &["byte 5000000 (token 2500000)", "below 256", "found 300"]);
    assert!(Shard::open(&path, 302).is_ok());
}
