//! The CUDA path without a GPU: a child process finds a `libcuda.so` over the simulated device and drives it through
//! cudarc.
#![allow(clippy::print_stdout)] // tests say what they skip, children say what they saw

use crate::gpu::{losses, over, sim};
use kiln::device::cuda::Cuda;
use kiln::device::ptx::{Module, Names};
use kiln::device::sim::Options;
use kiln::device::{Arg, Driver, Grid, Sim};
use std::process::Command;
use std::sync::Arc;

const KERNELS: &str = "
.version 7.1
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 smem[];

// y[i] = a x[i] + y[i], by way of shared memory
.visible .entry axpy(.param .u64 x_, .param .u64 y_, .param .f32 a_, .param .u32 n_)
{
    .reg .b64 %x, %y, %o;
    .reg .b32 %i, %n, %b, %t, %s;
    .reg .f32 %a, %v, %w;
    .reg .pred %out;
    ld.param.u64 %x, [x_];
    ld.param.u64 %y, [y_];
    ld.param.f32 %a, [a_];
    ld.param.u32 %n, [n_];
    mov.u32 %t, %tid.x;
    mov.u32 %b, %ctaid.x;
    mad.lo.u32 %i, %b, 256, %t;
    setp.ge.u32 %out, %i, %n;
    @%out bra $end;
    mul.wide.u32 %o, %i, 4;
    add.s64 %x, %x, %o;
    add.s64 %y, %y, %o;
    mov.u32 %s, smem;
    mad.lo.u32 %s, %t, 4, %s;
    ld.global.f32 %v, [%x];
    st.shared.f32 [%s], %v;
    ld.shared.f32 %v, [%s];
    ld.global.f32 %w, [%y];
    fma.rn.f32 %w, %a, %v, %w;
    st.global.f32 [%y], %w;
$end:
    ret;
}
";

/// What a child does on the stand-in, by name.
const CHILDREN: [(&str, fn()); 4] =
    [("computes", computes), ("trains", trains), ("faults", faults), ("refused", refused)];

/// Runs one of [`CHILDREN`] in a process whose `libcuda.so` is the stand-in: whether it was well, and all that it said.
/// `None` where the stand-in was not built.
fn child(name: &str, env: &[(&str, &str)]) -> Option<(bool, String)> {
    let exe = std::env::current_exe().expect("this program");
    let dir = exe.parent().and_then(|deps| deps.parent()).expect("a target folder").join("examples");
    if !dir.join("libcuda.so").is_file() {
        println!(
            "skipped: {} is not there; a plain `cargo test --release` builds it",
            dir.join("libcuda.so").display()
        );
        return None;
    }
    let mut command = Command::new(exe);
    command.args(["--exact", "cuda::a_child_of_the_others", "--nocapture"]).env("LD_LIBRARY_PATH", dir);
    command.env("KILN_CUDA_CHILD", name).envs(env.iter().copied());
    let output = command.output().expect("this program runs");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Some((output.status.success(), said))
}

#[test]
fn a_child_of_the_others() {
    if let Ok(name) = std::env::var("KILN_CUDA_CHILD") {
        CHILDREN.iter().find(|(known, _)| *known == name).expect("a known child").1();
    }
}

fn module() -> Arc<Module> {
    Arc::new(Module::new("axpy.ptx", KERNELS, &Names::default()).expect("a module"))
}

/// y = 2x + y over 1,000 numbers, with `shared` bytes of shared memory for each block.
fn axpy(driver: &dyn Driver, shared: usize) -> kiln::error::Result<Vec<u8>> {
    let numbers = |f: fn(f32) -> f32| (0..1000).flat_map(|i| f(i as f32).to_le_bytes()).collect::<Vec<u8>>();
    let (x, y) = (driver.alloc(4000)?, driver.alloc(4000)?);
    driver.upload(x, &numbers(|i| 0.5 * i))?;
    driver.upload(y, &numbers(|i| 1.0 - i))?;
    let function = driver.function(&module(), "axpy")?;
    let grid = Grid { shared, ..Grid::each(1000) };
    driver.launch(&function, grid, &[x.into(), y.into(), Arg::F32(2.0), Arg::U32(1000)])?;
    let mut out = vec![0; 4000];
    driver.download(&mut out, y)?;
    driver.free(x)?;
    driver.free(y)?;
    Ok(out)
}

fn computes() {
    let cuda = Cuda::new().expect("the stand-in");
    println!("opened {}", cuda.describe());
    let simulated = Sim::new(Options::new(true).expect("a simulated device"));
    // More than 48 KiB has to be asked for.
    for shared in [1024, 100 << 10] {
        let got = axpy(&cuda, shared).expect("it runs");
        assert_eq!(got, axpy(&simulated, shared).expect("it runs"));
        assert!(got.chunks_exact(4).all(|x| *x == 1f32.to_le_bytes()), "{got:?}");
    }
    let ptr = cuda.alloc(40).expect("memory");
    cuda.fill(ptr, 7, 10).expect("filled");
    let mut words = [0; 40];
    cuda.download(&mut words, ptr).expect("read");
    assert!(words.chunks_exact(4).all(|word| *word == 7u32.to_le_bytes()));
    for problem in [
        cuda.alloc(1 << 40).unwrap_err(),
        cuda.function(&module(), "xpay").unwrap_err(),
        axpy(&cuda, 1 << 20).unwrap_err(),
        cuda.launch(&cuda.function(&module(), "axpy").expect("it is there"), Grid::each(1), &[Arg::U32(1)])
            .unwrap_err(),
    ] {
        println!("said: {problem}");
    }
    // What the driver does not take is said with the line as it was written: ours takes it, so the text is changed after.
    let mut broken = Module::new("axpy.ptx", KERNELS, &Names::default()).expect("a module");
    broken.source.expanded.text = broken.source.expanded.text.replace("fma.rn.f32", "fma.rn.f33");
    println!("said: {}", cuda.function(&Arc::new(broken), "axpy").unwrap_err());
    println!("done");
}

#[test]
fn kernels_launched_through_cudarc_give_the_bits_of_the_simulated_device() {
    let Some((well, said)) = child("computes", &[("STAND_IN_CHECKS", "1")]) else { return };
    assert!(well && said.contains("done"), "{said}");
    for part in [
        "opened simulated GPU, 1 GiB, compute capability 8.0, CUDA 12.4",
        "1099511627776 bytes do not fit",
        "no kernel `xpay`",
        "1048576 bytes of shared memory for a block",
        "axpy takes 4 arguments, 1 are given",
        "axpy.ptx:32: the driver does not take it",
        "fma.rn.f32 %w, %a, %v, %w;",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// Some steps on the GPU that cudarc finds and on the simulated one.
fn trains() {
    for precision in ["f32", "bf16"] {
        let more = [format!("train.precision={precision}"), "model.dropout=0.1".into()];
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let through_cudarc = losses(&more, &over(Cuda::new().expect("the stand-in")), 4);
        let simulated = losses(&more, &sim(false), 4);
        assert_eq!(through_cudarc, simulated, "{precision}");
        println!("{precision}: {simulated:?}");
    }
    println!("done");
}

#[test]
fn training_through_cudarc_gives_the_bits_of_the_simulated_device() {
    let Some((well, said)) = child("trains", &[]) else { return };
    assert!(well && said.contains("done"), "{said}");
}

/// A kernel that writes where nothing is.
fn faults() {
    let cuda = Cuda::new().expect("the stand-in");
    let function = cuda.function(&module(), "axpy").expect("it is there");
    let (x, y) = (cuda.alloc(4000).expect("memory"), cuda.alloc(16).expect("memory"));
    cuda.upload(x, &[0; 4000]).expect("uploaded");
    cuda.upload(y, &[0; 16]).expect("uploaded");
    let args = [x.into(), y.into(), Arg::F32(2.0), Arg::U32(1000)];
    cuda.launch(&function, Grid { shared: 1024, ..Grid::each(1000) }, &args).expect("as on a GPU, noticed later");
    println!("said: {}", cuda.sync().unwrap_err());
    println!("then: {}", cuda.alloc(1).unwrap_err());
}

#[test]
fn a_kernel_that_fails_is_told_at_the_next_wait_and_ever_after() {
    let Some((well, said)) = child("faults", &[("STAND_IN_CHECKS", "1")]) else { return };
    assert!(well, "{said}");
    for part in [
        "said: simulated GPU: waiting: ",
        "an illegal memory access was encountered; launched last: axpy (axpy.ptx)",
        "then: simulated GPU: allocating memory",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

fn refused() {
    match Cuda::new() {
        Ok(_) => println!("opened"),
        Err(error) => println!("said: {error}; {}", error.hint().unwrap_or_default()),
    }
}

#[test]
fn drivers_and_devices_that_are_too_old_or_missing_are_refused_by_name() {
    for (env, part) in [
        (("STAND_IN_CUDA", "11080"), "the driver supports CUDA 11.8; 12.0 is needed; install a newer NVIDIA driver"),
        (("STAND_IN_DEVICES", "0"), "the driver is installed and finds no device"),
        (("STAND_IN_CAPABILITY", "7"), "simulated GPU is of compute capability 7.0; 8.0 is needed"),
    ] {
        let Some((well, said)) = child("refused", &[env]) else { return };
        assert!(well && said.contains(part), "{part}: {said}");
    }
}
