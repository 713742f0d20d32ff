//! kiln's PTX kernels on the simulated GPU with all checks on, against plain loops in f64: the cases of `kiln::proof`.

mod attention;
mod command;
mod conv;
mod faults;
mod flat;
mod gemm;
mod library;
mod registers;
mod rows;
mod study;

use kiln::device::Sim;
use kiln::device::sim::{Counters, Options};
use kiln::proof::{Case, Outcome, Rig, cases};

fn sim() -> Sim {
    Sim::new(Options { memory: 8 << 20, threads: 1, ..Options::new(true).unwrap() })
}

/// Runs the cases of a file whose names are wanted. Each must hold; whatever the simulator finds wrong fails the test.
#[track_caller]
fn hold(file: &str, wanted: impl Fn(&str) -> bool) -> Vec<(Case, Outcome)> {
    let sim = sim();
    let rig = Rig::new(&sim);
    let mut done = Vec::new();
    for case in cases().into_iter().filter(|case| case.file == file && wanted(&case.name)) {
        let outcome = rig.run(&case).unwrap_or_else(|error| panic!("{file}, {}: {error}", case.name));
        assert!(outcome.holds(), "{file}, {}: {:?}", case.name, outcome.worst());
        done.push((case, outcome));
    }
    assert!(!done.is_empty(), "{file} has no such case");
    assert_eq!(sim.used(), 0, "all memory goes back");
    done
}

/// What each launch of some cases did, with a name for messages.
fn counted(done: &[(Case, Outcome)]) -> impl Iterator<Item = (String, &'static str, &Counters)> {
    done.iter().flat_map(|(case, outcome)| {
        outcome.launches.iter().map(|launch| {
            let counters = launch.counters.as_ref().expect("the simulated device counts");
            (format!("{}: {}", case.name, launch.plan.entry), launch.plan.entry, counters)
        })
    })
}

#[test]
fn every_kernel_is_in_a_case_that_launches_it() {
    let cases = cases();
    for (file, _) in kiln::device::kernels::FILES {
        let module = kiln::device::kernels::Variant::new(file, []).module().unwrap();
        for entry in &module.entries {
            let case = cases.iter().find(|case| case.file == file && case.entries.contains(&entry.name.as_str()));
            assert!(case.is_some_and(|case| case.is_of(&entry.name)), "{file}: {}", entry.name);
        }
        assert!(cases.iter().any(|case| case.file == file && case.typical), "{file}");
    }
}

#[test]
fn a_wrong_result_is_told_with_its_place() {
    /// A device that spoils the third number of what is read.
    struct Spoilt(Sim);
    use kiln::Result;
    use kiln::device::driver::{Arg, Driver, Function, Grid, Ptr};
    use kiln::device::ptx::Module;
    impl Driver for Spoilt {
        fn describe(&self) -> String {
            self.0.describe()
        }
        fn alloc(&self, bytes: usize) -> Result<Ptr> {
            self.0.alloc(bytes)
        }
        fn free(&self, ptr: Ptr) -> Result<()> {
            self.0.free(ptr)
        }
        fn upload(&self, to: Ptr, from: &[u8]) -> Result<()> {
            self.0.upload(to, from)
        }
        fn download(&self, to: &mut [u8], from: Ptr) -> Result<()> {
            self.0.download(to, from)?;
            to[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
            Ok(())
        }
        fn fill(&self, to: Ptr, word: u32, words: usize) -> Result<()> {
            self.0.fill(to, word, words)
        }
        fn function(&self, module: &std::sync::Arc<Module>, name: &str) -> Result<Function> {
            self.0.function(module, name)
        }
        fn launch(&self, function: &Function, grid: Grid, args: &[Arg]) -> Result<()> {
            self.0.launch(function, grid, args)
        }
        fn sync(&self) -> Result<()> {
            self.0.sync()
        }
        fn memory(&self) -> usize {
            self.0.memory()
        }
        fn record(&self) -> Result<()> {
            self.0.record()
        }
        fn recorded(&self) -> Result<usize> {
            self.0.recorded()
        }
        fn replay(&self, recording: usize) -> Result<()> {
            self.0.replay(recording)
        }
        fn mark(&self, number: usize) -> Result<()> {
            self.0.mark(number)
        }
        fn between(&self, first: usize, second: usize) -> Result<f64> {
            self.0.between(first, second)
        }
    }
    let device = Spoilt(sim());
    let case = cases().into_iter().find(|case| case.is_of("dropout") && case.name.contains("f32 1003")).unwrap();
    let outcome = Rig::new(&device).run(&case).unwrap();
    assert!(!outcome.holds());
    let worst = outcome.worst().unwrap();
    assert!(worst.at == [2, 1003] && worst.got.is_nan() && worst.error == f64::INFINITY, "{worst:?}");
}
