//! kiln's PTX kernels on the simulated GPU with all checks on, against plain loops in f64.

mod attention;
mod flat;
mod gemm;
mod library;
mod registers;
mod rows;

use half::{bf16, f16};
use kiln::device::kernels::{Float, Plan, Variant};
use kiln::device::ptx::Module;
use kiln::device::sim::{Counters, Options};
use kiln::device::{Arg, Driver, Grid, Ptr, Sim};
use kiln::rng::{Purpose, Stream};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

const TYPES: [Float; 3] = [Float::F32, Float::Bf16, Float::F16];

/// What an absent array has for an address.
const NONE: Arg = Arg::U64(0);

/// Modules, which do not change from test to test.
static MODULES: LazyLock<Mutex<HashMap<Variant, Arc<Module>>>> = LazyLock::new(Mutex::default);

struct Bench {
    sim: Sim,
}

/// `n` numbers from a normal distribution, the same for the same `tensor`.
fn normal(tensor: u32, n: usize, deviation: f32) -> Vec<f32> {
    let mut x = vec![0.0; n];
    Stream::new(11, Purpose::Test, tensor, 0).normals(deviation, &mut x);
    x
}

/// Numbers as an array of type `t` holds them.
fn round(t: Float, x: &[f32]) -> Vec<f64> {
    let value = |x: f32| match t {
        Float::F32 => f64::from(x),
        Float::Bf16 => bf16::from_f32(x).to_f64(),
        Float::F16 => f16::from_f32(x).to_f64(),
    };
    x.iter().map(|x| value(*x)).collect()
}

/// The bound on the error of a result of type `t`, as a part of the largest.
fn bound(t: Float) -> f64 {
    match t {
        Float::F32 => 1e-5,
        Float::Bf16 => 4.1e-3,
        Float::F16 => 5.2e-4,
    }
}

/// Asserts |got − want| ≤ bound · max |want| + 1e-6 for each element.
#[track_caller]
fn close(what: &str, got: &[f64], want: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let max = want.iter().filter(|x| x.is_finite()).fold(0.0f64, |max, x| max.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (g - w).abs();
        assert!(error <= bound * max + 1e-6 || g == w, "{what}, element {i} of {}: {g}, not {w}", got.len());
    }
}

impl Bench {
    fn new() -> Bench {
        Bench { sim: Sim::new(Options { memory: 8 << 20, threads: 1, ..Options::new(true).unwrap() }) }
    }

    /// Memory that nothing wrote.
    fn room(&self, bytes: usize) -> Ptr {
        self.sim.alloc(bytes.max(1)).unwrap()
    }

    fn room_for(&self, t: Float, n: usize) -> Ptr {
        self.room(n * t.bytes())
    }

    fn put<T: bytemuck::Pod>(&self, x: &[T]) -> Ptr {
        let bytes: &[u8] = bytemuck::cast_slice(x);
        let ptr = self.room(bytes.len());
        self.sim.upload(ptr, bytes).unwrap();
        ptr
    }

    /// Numbers in an array of type `t`.
    fn put_as(&self, t: Float, x: &[f32]) -> Ptr {
        match t {
            Float::F32 => self.put(x),
            Float::Bf16 => self.put(&x.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>()),
            Float::F16 => self.put(&x.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>()),
        }
    }

    /// Where a kernel writes its result: what `old` holds, if it adds to that, else memory that nothing wrote.
    fn result(&self, t: Float, old: &[f32], add: u32) -> Ptr {
        if add == 1 { self.put_as(t, old) } else { self.room_for(t, old.len()) }
    }

    fn get<T: bytemuck::Pod>(&self, ptr: Ptr, n: usize) -> Vec<T> {
        let mut x = vec![T::zeroed(); n];
        self.sim.download(bytemuck::cast_slice_mut(&mut x), ptr).unwrap();
        x
    }

    fn get_as(&self, t: Float, ptr: Ptr, n: usize) -> Vec<f64> {
        match t {
            Float::F32 => self.get::<f32>(ptr, n).iter().map(|x| f64::from(*x)).collect(),
            Float::Bf16 => self.get::<bf16>(ptr, n).iter().map(|x| x.to_f64()).collect(),
            Float::F16 => self.get::<f16>(ptr, n).iter().map(|x| x.to_f64()).collect(),
        }
    }

    /// Runs a kernel; whatever the simulator finds wrong with it fails the test.
    #[track_caller]
    fn run(&self, plan: &Plan, args: &[Arg]) -> Counters {
        let module = self.module(&plan.variant);
        let ran = self.sim.function(&module, plan.entry).and_then(|f| self.sim.launch(&f, plan.grid, args));
        if let Err(error) = ran {
            panic!("{:?}: {error}", plan.variant);
        }
        self.sim.counters()
    }

    fn module(&self, variant: &Variant) -> Arc<Module> {
        let mut modules = MODULES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let made = || Arc::new(variant.module().unwrap_or_else(|error| panic!("{variant:?}: {error}")));
        Arc::clone(modules.entry(variant.clone()).or_insert_with(made))
    }
}

/// A number as an argument.
fn n(x: usize) -> Arg {
    Arg::U32(x as u32)
}

/// The same plan with another grid.
fn with_grid(plan: Plan, blocks: u32) -> Plan {
    Plan { grid: Grid { blocks: [blocks, 1, 1], ..plan.grid }, ..plan }
}
