//! Who does the same work in turns with kiln: PyTorch, crates that multiply matrices, any program that serves.

use super::peer::Peer;
use super::{Case, Part, Repetition, python};
use crate::device::Device;
use crate::error::{Error, Result};
use std::path::Path;
use std::process::Command;

/// Crates that this program can be built with, for matrix products.
const CRATES: [&str; 3] = ["faer", "gemm", "matrixmultiply"];

/// A rival, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Against {
    /// PyTorch on the CPU.
    Torch {
        /// Through `torch.compile`.
        compile: bool,
        /// With glibc told to keep freed memory and to use huge pages.
        keep_memory: bool,
        /// With pictures and their weights as (N, H, W, C).
        channels_last: bool,
    },
    /// A Python package that makes tokens: tiktoken, tokenizers.
    Tokens(&'static str),
    /// A crate.
    Crate(&'static str),
    /// A program that follows the protocol of benches/peers/README.md.
    Program(String),
}

impl Against {
    /// Reads what `--against` takes; `torch:best` is several.
    ///
    /// # Errors
    /// Nobody is called so.
    pub fn parse(word: &str) -> Result<Vec<Against>> {
        let torch = |compile, keep_memory| Against::Torch { compile, keep_memory, channels_last: false };
        Ok(match word {
            "torch" | "torch:eager" => vec![torch(false, false)],
            "torch:compile" => vec![torch(true, false)],
            "torch:keepmem" => vec![torch(false, true)],
            "torch:channels-last" => {
                vec![Against::Torch { compile: false, keep_memory: false, channels_last: true }]
            }
            "tiktoken" => vec![Against::Tokens("tiktoken")],
            "tokenizers" => vec![Against::Tokens("tokenizers")],
            "torch:best" => vec![torch(false, false), torch(true, false), torch(false, true)],
            _ => match CRATES.iter().find(|name| **name == word) {
                Some(name) => vec![Against::Crate(name)],
                None => {
                    let known = "torch, torch:compile, torch:keepmem, torch:best, torch:channels-last, faer, gemm, matrixmultiply, tiktoken, tokenizers";
                    return Err(Error::usage(format!("--against {word}: nobody is called so"), format!("use {known}")));
                }
            },
        })
    }

    /// Whether it can do `case` on `device`, with this Python: to be asked before anything is measured.
    ///
    /// # Errors
    /// It cannot, and why.
    pub fn fits(&self, case: &Case, device: &Device, python: Option<&Path>) -> Result<()> {
        let on_gpu = matches!(device, Device::Gpu(_));
        match self {
            Against::Crate(name) if on_gpu => Err(Error::usage(
                format!("--against {name}: {name} computes on the CPU"),
                "--against torch, or --device cpu",
            )),
            Against::Torch { keep_memory: true, .. } if on_gpu => Err(Error::usage(
                "--against torch:keepmem is about the host's memory",
                "--against torch, torch:compile",
            )),
            Against::Crate(name) if case.bench != "gemm" => {
                Err(Error::usage(format!("--against {name}: {name} multiplies matrices"), "kiln bench gemm"))
            }
            Against::Crate(name) => library(name, 1).map(drop),
            Against::Tokens(name) if case.bench != "tokenizer" => {
                Err(Error::usage(format!("--against {name}: {name} makes tokens"), "kiln bench tokenizer"))
            }
            Against::Torch { .. } if case.bench == "tokenizer" => {
                let problem = "--against torch: torch makes no tokens";
                Err(Error::usage(problem, "kiln bench tokenizer --against tiktoken,tokenizers"))
            }
            Against::Torch { channels_last: true, .. } if case.spec["pictures"].is_null() => {
                let problem = "--against torch:channels-last is for models of pictures";
                Err(Error::usage(problem, "kiln bench step vae-conv"))
            }
            Against::Torch { compile: true, .. } if case.bench != "step" => {
                Err(Error::usage("--against torch:compile is for training steps", "kiln bench step"))
            }
            Against::Torch { .. } if case.spec.is_null() => {
                let problem = format!("--against torch: the script knows no model like that of {}", case.name);
                Err(Error::usage(problem, "it builds GPT-2's kind in f32 or bf16, with AdamW, in one micro-batch"))
            }
            Against::Torch { .. } | Against::Tokens(_) => python::interpreter(python).map(drop),
            Against::Program(words) if words.trim().is_empty() => {
                Err(Error::usage("--peer is empty", "give a command that serves"))
            }
            Against::Program(_) => Ok(()),
        }
    }
}

/// A rival that is there.
pub struct Rival(Kind);

enum Kind {
    Process(Peer),
    #[cfg(feature = "peers")]
    Crate(library::Library),
}

impl Rival {
    /// Starts a rival that [fits](Against::fits) `case`, on as many threads as `device` has, or on the GPU; one that takes
    /// cases by line can enter others afterwards.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(against: &Against, case: &Case, device: &Device, python: Option<&Path>) -> Result<Rival> {
        let threads = device.host().threads.count();
        let (mut command, shown) = match against {
            Against::Crate(name) => return library(name, threads),
            Against::Program(words) => {
                let mut parts = words.split_whitespace();
                let mut command = Command::new(parts.next().unwrap_or_default());
                command.args(parts);
                (command, words.clone())
            }
            Against::Tokens(name) => {
                let python = python::interpreter(python)?;
                let mut command = python::command(&python, "tokenizer_peer.py")?;
                command.args([name, "--threads", &threads.to_string(), "--serve"]);
                (command, format!("{} tokenizer_peer.py {name}", python.display()))
            }
            Against::Torch { compile, keep_memory, channels_last } => {
                let script = match case.bench {
                    "step" if !case.spec["pictures"].is_null() => "pictures_torch.py",
                    "step" => "gpt_torch.py",
                    "decode" if !case.spec["transformers"].is_null() => "decode_transformers.py",
                    "decode" => "decode_torch.py",
                    _ => "kernels_torch.py",
                };
                let python = python::interpreter(python)?;
                let mut command = python::command(&python, script)?;
                if matches!(case.bench, "step" | "decode") {
                    command.arg(case.spec.to_string());
                    command.arg(case.spec["precision"].as_str().unwrap_or("f32"));
                }
                if *compile {
                    command.arg("compile");
                }
                if *channels_last {
                    command.arg("--channels-last");
                }
                if *keep_memory {
                    command.arg("--keep-memory");
                }
                command.args(["--threads", &threads.to_string(), "--serve"]);
                if let Device::Gpu(_) = device {
                    command.args(["--device", "cuda"]);
                }
                (command, format!("{} {script}", python.display()))
            }
        };
        for variable in python::THREADS {
            command.env(variable, threads.to_string());
        }
        Ok(Rival(Kind::Process(Peer::start(command, &shown)?)))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match &self.0 {
            Kind::Process(peer) => peer.name(),
            #[cfg(feature = "peers")]
            Kind::Crate(library) => library.name,
        }
    }

    /// The most memory that it has held, in MB, where it has said so.
    pub fn peak_rss_mb(&self) -> Option<f64> {
        match &self.0 {
            Kind::Process(peer) => peer.last["peak_rss_mb"].as_f64(),
            #[cfg(feature = "peers")]
            Kind::Crate(_) => None,
        }
    }

    /// Makes it ready for `case` and gives what does one repetition of these parts; or says why it cannot.
    ///
    /// # Errors
    /// It has gone.
    pub fn enter<'a>(&'a mut self, case: &Case, parts: &[Part]) -> Result<Result<Repetition<'a>, String>> {
        match &mut self.0 {
            Kind::Process(peer) => {
                if let Some(why) = peer.prepare(&case.spec)? {
                    return Ok(Err(why));
                }
                let keys: Vec<String> = parts.iter().map(Part::key).collect();
                Ok(Ok(Box::new(move || {
                    peer.once()?;
                    keys.iter().map(|key| peer.seconds(key)).collect()
                })))
            }
            #[cfg(feature = "peers")]
            Kind::Crate(library) => Ok(library.products(case)),
        }
    }
}

#[cfg(not(feature = "peers"))]
fn library(name: &'static str, _: usize) -> Result<Rival> {
    let hint = "build kiln with: cargo build --release --features peers";
    Err(Error::usage(format!("--against {name}: this kiln was built without other crates"), hint))
}

#[cfg(feature = "peers")]
fn library(name: &'static str, threads: usize) -> Result<Rival> {
    Ok(Rival(Kind::Crate(library::Library { name, threads })))
}

#[cfg(feature = "peers")]
mod library {
    use crate::bench::gemm::Product;
    use crate::bench::{Case, Repetition, repeated};
    use crate::cpu::rivals::{Operand, Rival};
    use crate::device::Device;
    use std::time::Duration;

    /// A crate in this process.
    pub struct Library {
        pub name: &'static str,
        pub threads: usize,
    }

    impl Library {
        /// Repeats the product of `case`.
        pub fn products(&self, case: &Case) -> Result<Repetition<'static>, String> {
            let product: Product = serde_json::from_value(case.spec.clone()).map_err(|e| e.to_string())?;
            if case.spec["dtype"] != "f32" {
                return Err("f32 only".to_owned());
            }
            let rival = match self.name {
                "faer" => Rival::Faer,
                "gemm" => Rival::Gemm,
                _ => Rival::MatrixMultiply,
            };
            let (threads, Product { m, k, n, .. }, [at, bt]) = (self.threads, product, product.form.transposed());
            let [a, b, mut c] = product.operands();
            let device = Device::cpu(1).map_err(|e| e.to_string())?;
            let mut repeat = repeated(&device, 1, move |clock| {
                let (a, b) = (Operand::new(&a, [m, k], at), Operand::new(&b, [k, n], bt));
                clock.time(0, || rival.multiply(threads, a, b, &mut c));
                Ok(())
            });
            Ok(Box::new(move || {
                let seconds = repeat();
                if threads > 1 {
                    // Until its workers sleep.
                    std::thread::sleep(Duration::from_millis(5));
                }
                seconds
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_have_names() {
        assert_eq!(Against::parse("torch:best").unwrap().len(), 3);
        assert_eq!(Against::parse("faer").unwrap(), [Against::Crate("faer")]);
        let error = Against::parse("jax").unwrap_err();
        assert!(error.to_string().contains("jax") && error.hint().unwrap().contains("matrixmultiply"), "{error}");
    }
}
