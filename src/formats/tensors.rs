//! Safetensors files, written and read one tensor at a time, so that memory never holds a second copy of a model.
//!
//! The format: a little-endian u64 length, a JSON header of that length, then the tensors' bytes.

use super::header::Header;
use crate::disk::{Disk, File, Open};
use crate::error::{AtPath, Error, Result};
use crate::tensor::{DType, Element, Tensor};
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

#[cfg(target_endian = "big")]
compile_error!("tensors are stored as they lie in memory, which must be little-endian");

/// A tensor to be written.
pub struct Entry {
    /// Its name in the file.
    pub name: String,
    /// An f32 or bf16 tensor.
    pub tensor: Tensor,
    /// Whether a matrix (r, c) is stored as (c, r).
    pub transposed: bool,
}

/// Writes `entries` to `path` and puts the file on disk; gives its SHA-256 as it should be, computed from memory.
pub fn write(disk: &dyn Disk, path: &Path, entries: &[Entry]) -> Result<String> {
    let mut end = 0;
    let infos = entries.iter().map(|entry| {
        let start = end;
        end += entry.tensor.spec().bytes();
        let mut shape = entry.tensor.shape().to_vec();
        if entry.transposed {
            shape.reverse();
        }
        let dtype = if entry.tensor.dtype() == DType::Bf16 { Dtype::BF16 } else { Dtype::F32 };
        (entry.name.clone(), TensorInfo { dtype, shape, data_offsets: (start, end) })
    });
    let header = header(infos.collect());
    // Slices longer than the buffer pass it by.
    let file = BufWriter::with_capacity(1 << 20, disk.open(path, Open::Create).at(path)?);
    let mut file = Hashing { file, sum: Sha256::new() };
    let mut all = || -> std::io::Result<()> {
        file.write(&header)?;
        for entry in entries {
            match entry.tensor.dtype() {
                DType::Bf16 => file.elements::<bf16>(entry)?,
                _ => file.elements::<f32>(entry)?,
            }
        }
        file.file.flush()?;
        file.file.get_ref().sync()
    };
    all().at(path)?;
    Ok(hex(file.sum))
}

/// The bytes before the first tensor's.
pub(super) fn header(infos: Vec<(String, TensorInfo)>) -> Vec<u8> {
    // transformers asks for the key "format".
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(about), infos).expect("sizes follow from shapes");
    let mut header = serde_json::to_vec(&metadata).expect("a header is plain data");
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header].concat()
}

struct Hashing {
    file: BufWriter<Box<dyn File>>,
    sum: Sha256,
}

impl Hashing {
    fn elements<T: Element + Default>(&mut self, entry: &Entry) -> std::io::Result<()> {
        let x = entry.tensor.read::<T>();
        match entry.transposed {
            false => self.write(bytemuck::cast_slice(&x)),
            true => self.write(bytemuck::cast_slice(&transpose(&x, entry.tensor.shape()))),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.sum.update(bytes);
        self.file.write_all(bytes)
    }
}

/// The SHA-256 of a file.
pub fn sha256(disk: &dyn Disk, path: &Path) -> Result<String> {
    let (mut file, mut sum) = (disk.open(path, Open::Read).at(path)?, Sha256::new());
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).at(path)? {
            0 => return Ok(hex(sum)),
            n => sum.update(&buffer[..n]),
        }
    }
}

/// A digest as lower-case hexadecimal digits.
pub fn hex(sum: Sha256) -> String {
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An open safetensors file.
pub struct Reader {
    path: PathBuf,
    file: BufReader<Box<dyn File>>,
    header: Header,
}

impl Reader {
    /// Opens `path` and checks its header against the file's size.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Reader> {
        let mut file = disk.open(path, Open::Read).at(path)?;
        let size = file.seek(SeekFrom::End(0)).and_then(|size| file.rewind().map(|()| size)).at(path)?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let header = Header::read(path, &mut file, size)?;
        Ok(Reader { path: path.to_owned(), file, header })
    }

    /// The names of all tensors, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.header.names()
    }

    /// Reads the tensor `name` of `shape`, stored in f32 or bf16, into `to`; where `transposed`, a matrix (r, c) is stored as
    /// (c, r).
    pub fn read(&mut self, name: &str, shape: &[usize], transposed: bool, to: &mut [f32]) -> Result<()> {
        let mut stored = shape.to_vec();
        if transposed {
            stored.reverse();
        }
        let expected = format!("a tensor of shape {stored:?} in F32 or BF16");
        let wrong = |found| {
            let hint = "the file belongs to another model: check [model], data.vocab and train.context";
            Error::format(&self.path, name, &expected, found, hint)
        };
        let info = self.header.info(name).ok_or_else(|| wrong("none of that name".to_owned()))?;
        if info.shape != stored || !matches!(info.dtype, Dtype::F32 | Dtype::BF16) {
            return Err(wrong(format!("shape {:?} in {:?}", info.shape, info.dtype)));
        }
        self.file.seek(SeekFrom::Start(self.header.start() + info.data_offsets.0 as u64)).at(&self.path)?;
        if info.dtype == Dtype::BF16 {
            let mut narrow = vec![bf16::ZERO; to.len()];
            self.file.read_exact(bytemuck::cast_slice_mut(&mut narrow)).at(&self.path)?;
            to.iter_mut().zip(narrow).for_each(|(to, x)| *to = x.to_f32());
        } else {
            self.file.read_exact(bytemuck::cast_slice_mut(to)).at(&self.path)?;
        }
        if transposed {
            to.copy_from_slice(&transpose(to, &stored));
        }
        Ok(())
    }
}

/// The matrix `x` of `shape` (r, c) as (c, r), in tiles that fit the cache.
pub(super) fn transpose<T: Copy + Default>(x: &[T], shape: &[usize]) -> Vec<T> {
    const TILE: usize = 32;
    let &[rows, columns] = shape else { panic!("only matrices are stored transposed, not {shape:?}") };
    let mut y = vec![T::default(); x.len()];
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..columns).step_by(TILE) {
            for r in r0..rows.min(r0 + TILE) {
                for c in c0..columns.min(c0 + TILE) {
                    y[c * rows + r] = x[r * columns + c];
                }
            }
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::disk::Os;

    fn entries() -> Vec<Entry> {
        let device = Device::cpu(1).unwrap();
        let x: Vec<f32> = (0..70 * 33).map(|i| i as f32).collect();
        let entry = |name: &str, x: &[f32], shape: &[usize], transposed| Entry {
            name: name.into(),
            tensor: Tensor::from_slice(&device, x, crate::tensor::Shape::new(shape)),
            transposed,
        };
        vec![entry("w", &x, &[70, 33], true), entry("b", &[f32::NAN, -0.0, 1e-45], &[3], false)]
    }

    #[test]
    fn tensors_come_back_bit_for_bit_and_transposed_ones_lie_transposed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let sum = write(&Os, &path, &entries()).unwrap();
        assert_eq!(sum, sha256(&Os, &path).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let w = file.tensor("w").unwrap();
        assert_eq!(w.shape(), [33, 70]);
        assert_eq!(w.data()[4..8], 33f32.to_le_bytes(), "the second element in the file is w[1][0]");

        let mut reader = Reader::open(&Os, &path).unwrap();
        assert_eq!(reader.names(), ["w", "b"]);
        for entry in entries() {
            let mut x = vec![0.0; entry.tensor.numel()];
            reader.read(&entry.name, entry.tensor.shape(), entry.transposed, &mut x).unwrap();
            let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&x), bits(entry.tensor.f32()));
        }
        let error = |r: Result<()>| r.unwrap_err().to_string();
        assert!(error(reader.read("c", &[1], false, &mut [0.0])).contains("found none of that name"));
        assert!(
            error(reader.read("b", &[4], false, &mut [0.0; 4]))
                .contains("shape [4] in F32 or BF16, found shape [3] in F32")
        );
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write(&Os, &path, &entries()).unwrap();
        let good = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let message = Reader::open(&Os, &path).err().expect("a damaged file").to_string();
            assert!(message.contains("x.safetensors"), "{message}");
        };
        refused(&[]);
        refused(&good[..good.len() - 1]);
        refused(&[&good[..], &[0]].concat());
        for length in [0, 3, 1 << 40, u64::MAX] {
            refused(&[&u64::to_le_bytes(length), &good[8..]].concat());
        }
    }
}
