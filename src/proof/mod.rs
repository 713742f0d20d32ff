//! Proof that each kernel computes what it should: small cases, on any [`Driver`], against plain loops in f64.
//!
//! [`cases`] is the one table: `kiln kernels` runs, traces and profiles its cases, and the tests assert that they hold and
//! what the simulated device counted. A case is a function of a `Trial`: it puts numbers on the device, launches
//! kernels by the plans of [`device::kernels`](crate::device::kernels), and compares what they left.
//!
//! Where nothing else is said a result y of type t holds if |y − want| ≤ ε max |want| + 10⁻⁶, with ε = 10⁻⁵ for f32,
//! 4.1·10⁻³ for bf16 and 5.2·10⁻⁴ for f16: half a unit in the last place, and a little.

mod adamw;
mod attention;
mod augment;
mod codes;
mod conv;
mod flat;
mod gemm;
mod limits;
mod logits;
mod losses;
mod norm;
mod picture_norm;
mod policy;
mod resample;
mod rows;
mod second;
mod study;
pub mod variants;

use crate::device::driver::Function;
use crate::device::kernels::{Float, Plan, Variant};
use crate::device::sim::Counters;
use crate::device::{Arg, Driver, Ptr};
use crate::error::Result;
use crate::rng::{Purpose, Stream};
use half::{bf16, f16};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// The types of arrays.
const TYPES: [Float; 3] = [Float::F32, Float::Bf16, Float::F16];

/// What an absent array has for an address.
const NONE: Arg = Arg::U64(0);

type Work = Box<dyn Fn(&Trial<'_>) -> Result<()> + Send + Sync>;

/// A case of a kernel file.
pub struct Case {
    /// The file, as `gemm.ptx`.
    pub file: &'static str,
    /// Its kernels that are launched.
    pub entries: Vec<&'static str>,
    /// What is tried, with types and sizes.
    pub name: String,
    /// Whether its sizes are such as training has, if small: what a profile of the kernel shows.
    pub typical: bool,
    work: Work,
}

impl Case {
    fn new(
        file: &'static str,
        entries: &[&'static str],
        name: String,
        work: impl Fn(&Trial<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Case {
        Case { file, entries: entries.to_vec(), name, typical: false, work: Box::new(work) }
    }

    fn typical(self, typical: bool) -> Case {
        Case { typical, ..self }
    }

    /// Whether `name` means it: its file with or without `.ptx`, or one of its kernels.
    pub fn is_of(&self, name: &str) -> bool {
        self.file == name || self.file.strip_suffix(".ptx") == Some(name) || self.entries.contains(&name)
    }
}

/// All cases, by file.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let parts = [flat::cases, adamw::cases, norm::cases, rows::cases, logits::cases, gemm::cases, attention::cases];
    parts
        .into_iter()
        .chain([losses::cases as fn(&mut Vec<Case>), picture_norm::cases, resample::cases, conv::cases])
        .chain([codes::cases as fn(&mut Vec<Case>), second::cases, augment::cases, policy::cases])
        .chain([limits::cases as fn(&mut Vec<Case>), study::cases])
        .for_each(|add| add(&mut cases));
    cases.sort_by_key(|case| case.file);
    cases
}

/// What a case found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Its comparisons.
    pub checks: Vec<Check>,
    /// What was compared in each, whole.
    pub results: Vec<Vec<f64>>,
    /// Its launches.
    pub launches: Vec<Launch>,
}

impl Outcome {
    /// Whether there were comparisons and all hold.
    pub fn holds(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(Check::holds)
    }

    /// The comparison that is nearest to its bound, or farthest beyond.
    pub fn worst(&self) -> Option<&Check> {
        let ratio =
            |check: &&Check| if check.error <= check.bound { check.error / check.bound.max(1e-300) } else { 2.0 };
        self.checks.iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b)))
    }

    /// Seconds in launches.
    pub fn seconds(&self) -> f64 {
        self.launches.iter().map(|launch| launch.seconds).sum()
    }
}

/// A comparison: the element that comes nearest to its bound, or is farthest beyond.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was compared.
    pub what: String,
    /// |got − want|; infinite where one is not a number.
    pub error: f64,
    /// The most that it may be.
    pub bound: f64,
    /// The element, of how many, what it is and what it should be.
    pub at: [usize; 2],
    /// What it is.
    pub got: f64,
    /// What it should be.
    pub want: f64,
}

impl Check {
    /// Whether the error is within its bound.
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

/// A launch that a case made.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What ran.
    pub plan: Plan,
    /// How long it took, until the device was idle.
    pub seconds: f64,
    /// What it did, on a device that counts.
    pub counters: Option<Counters>,
}

type Edit<'a> = dyn Fn(&str, &str) -> String + 'a;

/// A device on which cases are run, and the kernels that it has loaded.
pub struct Rig<'a> {
    driver: &'a dyn Driver,
    edit: Option<Box<Edit<'a>>>,
    functions: RefCell<HashMap<(Variant, &'static str), Function>>,
    modules: RefCell<HashMap<Variant, Arc<crate::device::ptx::Module>>>,
}

impl<'a> Rig<'a> {
    /// A rig around a device.
    pub fn new(driver: &'a dyn Driver) -> Rig<'a> {
        Rig { driver, edit: None, functions: RefCell::default(), modules: RefCell::default() }
    }

    /// A rig whose kernel files have the text that `edit` makes of their names and texts.
    pub fn with_texts(driver: &'a dyn Driver, edit: impl Fn(&str, &str) -> String + 'a) -> Rig<'a> {
        Rig { edit: Some(Box::new(edit)), ..Rig::new(driver) }
    }

    /// Runs a case.
    ///
    /// # Errors
    /// The device refuses a launch, or a kernel fails on it. A result that is wrong is no error but a check that does not
    /// hold.
    pub fn run(&self, case: &Case) -> Result<Outcome> {
        let trial = Trial { rig: self, outcome: RefCell::default(), memory: RefCell::default() };
        let done = (case.work)(&trial);
        trial.memory.into_inner().into_iter().try_for_each(|ptr| self.driver.free(ptr))?;
        done.map(|()| trial.outcome.into_inner())
    }

    /// The kernel of a plan, loaded once.
    ///
    /// # Errors
    /// The device does not take it.
    pub fn function(&self, plan: &Plan) -> Result<Function> {
        let key = (plan.variant.clone(), plan.entry);
        if let Some(function) = self.functions.borrow().get(&key) {
            return Ok(function.clone());
        }
        let known = self.modules.borrow().get(&plan.variant).cloned();
        let module = match known {
            Some(module) => module,
            None => Arc::new(match &self.edit {
                Some(edit) => plan.variant.module_of(&edit(plan.variant.file, plan.variant.text()))?,
                None => plan.variant.module()?,
            }),
        };
        self.modules.borrow_mut().insert(plan.variant.clone(), Arc::clone(&module));
        let function = self.driver.function(&module, plan.entry)?;
        self.functions.borrow_mut().insert(key, function.clone());
        Ok(function)
    }
}

/// A case while it runs: its memory on the device, which goes back when it ends, and what it has found.
struct Trial<'a> {
    rig: &'a Rig<'a>,
    outcome: RefCell<Outcome>,
    memory: RefCell<Vec<Ptr>>,
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

/// A number as an argument.
fn n(x: usize) -> Arg {
    Arg::U32(x as u32)
}

/// An array where it is `given`.
fn given(given: bool, array: Ptr) -> Arg {
    if given { array.into() } else { NONE }
}

/// The same plan with another grid.
fn with_blocks(mut plan: Plan, blocks: u32) -> Plan {
    plan.grid.blocks = [blocks, 1, 1];
    plan
}

impl Trial<'_> {
    /// Memory that nothing wrote.
    fn room(&self, bytes: usize) -> Result<Ptr> {
        let ptr = self.rig.driver.alloc(bytes.max(1))?;
        self.memory.borrow_mut().push(ptr);
        Ok(ptr)
    }

    fn room_for(&self, t: Float, n: usize) -> Result<Ptr> {
        self.room(n * t.bytes())
    }

    fn put<T: bytemuck::Pod>(&self, x: &[T]) -> Result<Ptr> {
        let bytes: &[u8] = bytemuck::cast_slice(x);
        let ptr = self.room(bytes.len())?;
        self.rig.driver.upload(ptr, bytes).map(|()| ptr)
    }

    /// Numbers in an array of type `t`.
    fn put_as(&self, t: Float, x: &[f32]) -> Result<Ptr> {
        match t {
            Float::F32 => self.put(x),
            Float::Bf16 => self.put(&x.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>()),
            Float::F16 => self.put(&x.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>()),
        }
    }

    /// Where a kernel writes its result: what `old` holds, if it adds to that, else memory that nothing wrote.
    fn result(&self, t: Float, old: &[f32], add: u32) -> Result<Ptr> {
        if add == 1 { self.put_as(t, old) } else { self.room_for(t, old.len()) }
    }

    fn get<T: bytemuck::Pod>(&self, ptr: Ptr, n: usize) -> Result<Vec<T>> {
        let mut x = vec![T::zeroed(); n];
        self.rig.driver.download(bytemuck::cast_slice_mut(&mut x), ptr)?;
        Ok(x)
    }

    fn get_as(&self, t: Float, ptr: Ptr, n: usize) -> Result<Vec<f64>> {
        Ok(match t {
            Float::F32 => self.get::<f32>(ptr, n)?.iter().map(|x| f64::from(*x)).collect(),
            Float::Bf16 => self.get::<bf16>(ptr, n)?.iter().map(|x| x.to_f64()).collect(),
            Float::F16 => self.get::<f16>(ptr, n)?.iter().map(|x| x.to_f64()).collect(),
        })
    }

    /// Runs a kernel and waits for it.
    fn run(&self, plan: &Plan, args: &[Arg]) -> Result<()> {
        let function = self.rig.function(plan)?;
        let start = Instant::now();
        self.rig.driver.launch(&function, plan.grid, args)?;
        self.rig.driver.sync()?;
        let seconds = start.elapsed().as_secs_f64();
        let launch = Launch { plan: plan.clone(), seconds, counters: self.rig.driver.counted() };
        self.outcome.borrow_mut().launches.push(launch);
        Ok(())
    }

    /// Compares each element, which may be off by `allowed(want)`.
    fn compare(&self, what: &str, got: &[f64], want: &[f64], allowed: impl Fn(f64) -> f64) {
        let mut worst =
            Check { what: what.to_owned(), error: 0.0, bound: 0.0, at: [0, got.len()], got: 0.0, want: 0.0 };
        if got.len() != want.len() {
            worst.error = f64::INFINITY;
        }
        let mut most = -1.0;
        for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
            let error = if got == want { 0.0 } else { (got - want).abs() };
            let error = if error.is_nan() { f64::INFINITY } else { error };
            let bound = allowed(want);
            let ratio = if error == 0.0 { 0.0 } else { error / bound };
            if ratio > most {
                most = ratio;
                worst = Check { error, bound, at: [i, worst.at[1]], got, want, ..worst };
            }
        }
        let outcome = &mut *self.outcome.borrow_mut();
        outcome.checks.push(worst);
        outcome.results.push(got.to_vec());
    }

    /// Compares each element: |got − want| ≤ bound · max |want| + 10⁻⁶.
    fn close(&self, what: &str, got: &[f64], want: &[f64], bound: f64) {
        let max = want.iter().filter(|x| x.is_finite()).fold(0.0f64, |max, x| max.max(x.abs()));
        self.compare(what, got, want, |_| bound * max + 1e-6);
    }

    /// The same of an array on the device.
    fn close_at(&self, what: &str, t: Float, got: Ptr, want: &[f64], bound: f64) -> Result<()> {
        self.close(what, &self.get_as(t, got, want.len())?, want, bound);
        Ok(())
    }

    /// Compares bit for bit.
    fn same(&self, what: &str, got: &[f64], want: &[f64]) {
        self.compare(what, got, want, |_| 0.0);
    }
}
