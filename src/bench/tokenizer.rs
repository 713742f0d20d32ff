//! Text to tokens, and learning a vocabulary.

use super::data::Folder;
use super::{Case, Part, Started, Unit, Work};
use crate::data::{Document, Tokenizer};
use crate::error::{AtPath, Error, Result};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Separates documents in the file that peers read.
const SEPARATOR: &str = "\u{1e}";

/// Documents to encode and to learn from, also in a file for peers.
pub struct Texts {
    documents: Vec<String>,
    bytes: usize,
    folder: Folder,
    file: PathBuf,
}

impl Texts {
    /// The first `limit` bytes of `documents` (whole documents), or all.
    ///
    /// # Errors
    /// They cannot be read, there is none, or there is no room for the file.
    pub fn new(documents: impl Iterator<Item = Result<Document>>, limit: usize) -> Result<Texts> {
        let (mut texts, mut bytes) = (Vec::new(), 0);
        for document in documents {
            let text = document?.text.replace(SEPARATOR, " ");
            if bytes > 0 && bytes + text.len() > limit {
                break;
            }
            bytes += text.len();
            texts.push(text);
        }
        if bytes == 0 {
            return Err(Error::failed("there is no text to encode", "give files that hold text"));
        }
        let folder = Folder::temporary()?;
        let file = folder.path().join("texts");
        std::fs::write(&file, texts.join(SEPARATOR)).at(&file)?;
        Ok(Texts { documents: texts, bytes, folder, file })
    }

    /// Bytes of all documents.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Cases: encoding with `tokenizer`; learning `vocab` ids.
    ///
    /// # Errors
    /// The tokenizer cannot be written for peers.
    pub fn cases(self, tokenizer: Tokenizer, name: &str, vocab: usize, threads: usize) -> Result<Vec<Case>> {
        let json = self.folder.path().join("tokenizer.json");
        tokenizer.save(&json)?;
        let texts = Arc::new(self);
        let spec = |task: &str| json!({"bench": "tokenizer", "task": task, "texts": texts.file, "tokenizer": json, "vocab": vocab});
        let encode = {
            let texts = texts.clone();
            move |_: &_| {
                let (texts, tokenizer, pool) = (texts.clone(), tokenizer.clone(), pool(threads)?);
                texts.case(move |texts| pool.install(|| tokenizer.encode_batch(&texts.documents).map(drop)))
            }
        };
        let train = {
            let texts = texts.clone();
            move |_: &_| {
                let pool = pool(threads)?;
                texts.clone().case(move |texts| {
                    let document = |text: &String| Ok(Document { text: text.clone(), ..Document::default() });
                    pool.install(|| {
                        Tokenizer::train_bpe(texts.documents.iter().map(document), vocab, &|_| ()).map(drop)
                    })
                })
            }
        };
        Ok(vec![
            Case::new("tokenizer", format!("encode {name}"), spec("encode"), encode),
            Case::new("tokenizer", format!("train {vocab}"), spec("train"), train),
        ])
    }

    /// Times `call`, which goes over all texts once.
    fn case(self: Arc<Self>, mut call: impl FnMut(&Texts) -> Result<()> + 'static) -> Result<Started> {
        let work = Work { read: self.bytes as f64, ..Work::default() };
        let part = Part::whole(work, Unit::Text(self.bytes));
        let repeat = move || {
            let start = Instant::now();
            call(&self)?;
            Ok(vec![start.elapsed().as_secs_f64()])
        };
        Ok(Started { parts: vec![part], repeat: Box::new(repeat) })
    }
}

fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.map_err(|e| Error::failed(format!("starting {threads} threads: {e}"), "ask for fewer: --threads"))
}
