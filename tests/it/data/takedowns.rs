//! Where documents are in a data set, taking them out, and comparing data sets.

use super::*;
use kiln::data::diff::diff;
use kiln::data::index::{Index, beside, fingerprint, name};
use kiln::data::takedown::{RECORD_FILE, find, records, take_down};

/// Documents of many lengths, one of them longer than a shard and than a piece, with ids or without.
fn corpus() -> Vec<Document> {
    let text = |i: u64| match i {
        17 => random_text(17, 30_000),
        _ => format!("story {i}: {}", random_text(i, 40)),
    };
    let of = |i: u64| Document {
        text: text(i),
        source: PathBuf::from("a/b.jsonl"),
        line: i + 1,
        id: if i.is_multiple_of(3) { String::new() } else { format!("döc-{i}") },
        ..Document::default()
    };
    (0..120).map(of).collect()
}

fn shards(documents: &[Document], tokenizer: &Tokenizer, out: &Path) -> DatasetInfo {
    let split = Split { fraction: 0.2, ..Split::default() };
    let options = Prepare { split, max_tokens: 5000, ..Prepare::default() };
    prepare(documents.iter().cloned().map(Ok), tokenizer, &options, out, &mut |_| ()).unwrap()
}

/// All tokens of one side.
fn tokens(dir: &Path, part: Part) -> Vec<u32> {
    let data = Dataset::open(dir, part).unwrap();
    let mut ids = vec![0; data.len()];
    data.read(0, &mut ids).unwrap();
    ids.into_iter().map(|id| id as u32).collect()
}

/// The names of files in a folder.
fn files(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_token_is_of_the_document_that_the_index_names() {
    let (dir, documents) = (TempDir::new().unwrap(), corpus());
    let tokenizer = bpe(&documents[0].text, 400);
    let info = shards(&documents, &tokenizer, dir.path());
    assert!(info.train.shards.len() > 5);
    let mut seen = BTreeSet::new();
    for part in [Part::Train, Part::Val] {
        let ids = tokens(dir.path(), part);
        let (mut start, mut so_far, mut bytes, mut count) = (0, Vec::new(), 0, 0);
        for shard in &info.part(part).shards {
            let index = Index::open(&dir.path().join(&shard.file), shard.tokens).unwrap();
            assert_eq!(index.get(index.len() - 1).tokens.end as u64, shard.tokens);
            for entry in index.iter() {
                let document = documents.iter().find(|document| name(document) == entry.name).unwrap();
                let mut whole = tokenizer.encode(&document.text).unwrap();
                whole.extend(tokenizer.eot());
                if !entry.continued {
                    so_far.clear();
                }
                so_far.extend_from_slice(&ids[start + entry.tokens.start..start + entry.tokens.end]);
                assert!(whole.starts_with(&so_far), "{}", entry.name);
                assert_eq!(entry.fingerprint, fingerprint(&document.text));
                bytes += entry.bytes;
                if so_far == whole {
                    seen.insert(entry.name.to_owned());
                    count += 1;
                }
            }
            start += shard.tokens as usize;
        }
        assert_eq!((bytes, count), (info.part(part).bytes, info.part(part).documents));
    }
    assert_eq!(seen, documents.iter().map(name).collect());
    assert_eq!(name(&documents[0]), "a/b.jsonl:1");
}

#[test]
fn a_document_that_is_taken_out_leaves_no_token_and_no_other_one_goes() {
    let (dir, other, documents) = (TempDir::new().unwrap(), TempDir::new().unwrap(), corpus());
    let tokenizer = bpe(&documents[0].text, 400);
    let old = shards(&documents, &tokenizer, dir.path());
    // The long one, in several shards; one by its place; one that is held out.
    let held = (0..120).find(|&i| old.split.holds_out(i) && i % 3 != 0).unwrap();
    let names = [17, 33, held].map(|i| name(&documents[i as usize])).to_vec();
    let places = find(dir.path(), &names).unwrap();
    assert!(places.len() > 3 && places.iter().any(|place| place.part == Part::Val), "{places:?}");
    let before = [Part::Train, Part::Val].map(|part| tokens(dir.path(), part));
    let record = take_down(dir.path(), &places).unwrap();

    let info = DatasetInfo::load(dir.path()).unwrap();
    assert_eq!((&record.before, &record.after), (&old.hash(), &info.hash()));
    assert_ne!(record.before, record.after);
    for (part, before) in [Part::Train, Part::Val].into_iter().zip(before) {
        let mut left = before.clone();
        let mut gone: Vec<_> = places.iter().filter(|place| place.part == part).map(|place| &place.positions).collect();
        gone.sort_by_key(|range| std::cmp::Reverse(range.start));
        for range in gone {
            left.drain(range.clone());
        }
        assert!(tokens(dir.path(), part) == left);
    }
    // As many documents and bytes as if it had been made without them.
    let without: Vec<Document> = documents.iter().filter(|d| !names.contains(&name(d))).cloned().collect();
    assert_eq!(info.train.documents + info.val.documents, without.len() as u64);
    assert_eq!(info.train.bytes + info.val.bytes, without.iter().map(|d| d.text.len() as u64).sum::<u64>());
    assert!(find(dir.path(), &names).unwrap().is_empty());
    assert_eq!(records(dir.path()).unwrap(), [record]);
    // Nothing is left but what is named: shards with their indices, and three files.
    let shards = info.train.shards.iter().chain(&info.val.shards).map(|shard| shard.file.clone());
    let mut named: BTreeSet<String> = shards.flat_map(|file| [file.replace(".bin", ".idx"), file]).collect();
    named.extend(["dataset.json", "tokenizer.json", RECORD_FILE].map(str::to_owned));
    assert_eq!(files(dir.path()), named);

    // A second time from what the first one left, and the same shards as by both at once.
    let more = [name(&documents[50])];
    take_down(dir.path(), &find(dir.path(), &more).unwrap()).unwrap();
    assert_eq!(records(dir.path()).unwrap().len(), 2);
    super::takedowns::shards(&documents, &tokenizer, other.path());
    take_down(other.path(), &find(other.path(), &[&names[..], &more].concat()).unwrap()).unwrap();
    assert!(tokens(dir.path(), Part::Train) == tokens(other.path(), Part::Train));
    let all: Vec<String> = documents.iter().map(name).collect();
    assert_says(take_down(dir.path(), &find(dir.path(), &all).unwrap()), &["nothing would be left"]);
}

#[test]
fn a_takedown_that_ends_too_early_leaves_the_old_data_set_whole() {
    let (dir, documents) = (TempDir::new().unwrap(), corpus());
    let tokenizer = bpe(&documents[0].text, 400);
    shards(&documents, &tokenizer, dir.path());
    let before = tokens(dir.path(), Part::Train);
    let names = [name(&documents[17])];
    let places = find(dir.path(), &names).unwrap();
    // The description cannot be replaced, as when the process ends just before it is.
    let description = dir.path().join("dataset.json");
    let text = std::fs::read(&description).unwrap();
    std::fs::remove_file(&description).unwrap();
    let info: DatasetInfo = serde_json::from_slice(&text).unwrap();
    std::fs::write(&description, &text).unwrap();
    std::fs::create_dir(dir.path().join("blocked")).unwrap();
    let record = dir.path().join(RECORD_FILE);
    std::fs::create_dir(&record).unwrap();
    assert!(take_down(dir.path(), &places).is_err());
    std::fs::remove_dir(&record).unwrap();
    assert_eq!(DatasetInfo::load(dir.path()).unwrap(), info);
    assert!(tokens(dir.path(), Part::Train) == before);
    take_down(dir.path(), &places).unwrap();
    assert!(find(dir.path(), &names).unwrap().is_empty());
}

#[test]
fn a_damaged_index_is_refused() {
    let (dir, documents) = (TempDir::new().unwrap(), corpus());
    let info = shards(&documents, &Tokenizer::bytes(), dir.path());
    let shard = &info.train.shards[0];
    let path = dir.path().join(&shard.file);
    let whole = std::fs::read(beside(&path)).unwrap();
    let broken = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(beside(&path), &bytes).unwrap();
        Index::open(&path, shard.tokens)
    };
    assert_says(broken(&|bytes| bytes.clear()), &["index of documents"]);
    assert_says(broken(&|bytes| bytes[0] = b'x'), &["index of documents"]);
    assert_says(broken(&|bytes| bytes.truncate(bytes.len() - 1)), &["bytes 16 to 31"]);
    assert_says(broken(&|bytes| bytes[16..24].fill(0xFF)), &["bytes 16 to 31"]);
    assert_says(broken(&|bytes| bytes[32] ^= 1), &["tokens of the shard"]);
    assert_says(broken(&|bytes| bytes[80..88].fill(0xFF)), &["record 1"]);
    assert_says(broken(&|bytes| bytes[56..64].copy_from_slice(&u64::MAX.to_le_bytes())), &["record 0"]);
    let last = whole.len() - 1;
    assert_says(broken(&|bytes| bytes[last] = 0xFF), &["record"]);
    assert!(broken(&|_| ()).is_ok());
    std::fs::remove_file(beside(&path)).unwrap();
    assert_says(find(dir.path(), &[]), &["idx", "kiln data shard"]);
}

#[test]
fn data_sets_are_compared_by_names_and_texts() {
    let [a, b, c] = [TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap()];
    let mut documents = corpus();
    let tokenizer = bpe(&documents[0].text, 400);
    let info = shards(&documents, &tokenizer, a.path());
    let same = diff(a.path(), a.path(), 3).unwrap();
    assert_eq!(
        (same.divergence, same.added.len() + same.removed.len() + same.changed.len() + same.moved.len()),
        (Some(0.0), 0)
    );
    // The last but one is another text; the last one gives way to a new one.
    documents[118].text += " and no more";
    let gone = documents.pop().unwrap();
    documents.push(Document { id: "new".into(), text: "zzzz ".repeat(2000), ..Document::default() });
    shards(&documents, &tokenizer, b.path());
    let found = diff(a.path(), b.path(), 3).unwrap();
    assert_eq!(found.documents, [120, 120]);
    assert_eq!((&found.added[..], &found.removed[..]), (&["new".to_owned()][..], &[name(&gone)][..]));
    assert_eq!(found.changed, [name(&documents[118])]);
    if !info.split.holds_out(119) {
        let most = &found.shifted[0];
        assert!(found.divergence.unwrap() > 1e-3 && most.2 > most.1, "{found:?}");
    }
    // Other tokens; and other documents held out.
    let split = Split { fraction: 0.2, seed: 5, ..Split::default() };
    prepare(
        documents.iter().cloned().map(Ok),
        &Tokenizer::bytes(),
        &Prepare { split, ..Prepare::default() },
        c.path(),
        &mut |_| (),
    )
    .unwrap();
    let found = diff(b.path(), c.path(), 3).unwrap();
    assert_eq!((found.divergence, found.changed.len() + found.added.len() + found.removed.len()), (None, 0));
    let split_b = info.split;
    let moved = (0..120).filter(|&i| split.holds_out(i) != split_b.holds_out(i)).count();
    assert_eq!(found.moved.len(), moved);
}
