//! What kernels include, and what is said where something in it is wrong.

use super::*;
use kiln::device::kernels::{FILES, Float, flat};
use kiln::device::ptx::{Module, Names};
use kiln::device::{Arg, Driver};
use std::sync::Arc;

#[test]
fn every_file_reads_with_its_own_parameters() {
    for (name, text) in FILES {
        let module = Module::new(name, text, &Names::new()).unwrap_or_else(|error| panic!("{error}"));
        assert!(!module.entries.is_empty(), "{name}");
        assert_eq!((module.version, module.target), ((7, 0), 80), "{name}");
        assert!(text.lines().count() <= 700, "{name}");
    }
}

#[test]
fn a_mistake_in_a_macro_of_the_library_is_told_where_it_is_called() {
    let text = ".version 7.0\n.target sm_80\n.address_size 64\n//@ include math\n.visible .entry f()\n{\n\
                    .reg .f32 %x;\n    //@ sigmoid(%y, %x)\n}\n";
    let message = Module::new("f.ptx", text, &Names::new()).unwrap_err().to_string();
    assert!(message.contains("f.ptx:8:1: `%y` is not declared (lib/math.ptx:"), "{message}");
    let text = "//@ include mths\n";
    let error = Module::new("f.ptx", text, &Names::new()).unwrap_err();
    assert!(error.to_string().contains("f.ptx:1:13: there is no file `mths` to include"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("math")));
}

#[test]
fn a_fault_in_a_macro_of_the_library_is_told_where_it_is_called() {
    let sim = sim();
    let plan = flat("elementwise.ptx", "fill", Float::F32, 8, true);
    let y = sim.alloc(16).unwrap();
    let function = sim.function(&Arc::new(plan.variant.module().unwrap()), plan.entry).unwrap();
    sim.launch(&function, plan.grid, &[y.into(), Arg::U32(8), 1.0f32.into()]).unwrap_err();
    let fault = sim.fault().unwrap();
    let line = plan.variant.text().lines().nth(fault.line - 1).unwrap().trim();
    assert_eq!(line, "//@ put(T, %a, %py, W)");
    assert!(fault.text.starts_with("st.global.v4.f32") && fault.text.contains("// lib/vec.ptx:"), "{}", fault.text);
}
