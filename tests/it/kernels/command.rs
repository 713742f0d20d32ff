//! `kiln kernels`, each of its commands once.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn kiln(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.arg("kernels").args(args).env_remove("KILN_PTXAS").stdin(Stdio::null());
    command.output().expect("it runs")
}

#[track_caller]
fn text(args: &[&str]) -> String {
    let output = kiln(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(!text.contains('\x1b'), "no colours where there is no terminal");
    text
}

/// One object a line.
#[track_caller]
fn objects(args: &[&str]) -> Vec<Value> {
    let args = [args, &["--json"]].concat();
    text(&args).lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

/// What it says where it refuses: code 2, a problem and a hint.
#[track_caller]
fn refusal(args: &[&str]) -> String {
    let output = kiln(args);
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("error: ") && said.contains("\nhint: "), "{said}");
    said
}

#[test]
fn list_names_each_variant_of_each_kernel() {
    let rows = objects(&["list"]);
    let registers = kiln::proof::variants::REGISTERS.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(rows.len(), registers);
    let is =
        |row: &&Value| row["file"] == "attention.ptx" && row["entry"] == "attention_fwd" && row["settings"]["D"] == 64;
    let row = rows.iter().find(is).unwrap();
    assert_eq!(
        (&row["isa"], &row["target"], &row["shared_of_launch"]),
        (&"7.0".into(), &"sm_80".into(), &40960.into())
    );
    assert!(row["registers"]["sm_90"].as_u64().is_some_and(|n| n > 100));
    let shown = text(&["list"]);
    assert!(kiln::device::kernels::FILES.iter().all(|(file, _)| shown.contains(file)), "{shown}");
    assert!(text(&["list", "rope"]).contains("rope_fwd"));
}

#[test]
fn show_prints_a_file_a_kernel_and_what_the_assembler_gets() {
    let source = text(&["show", "rope"]);
    assert!(source.contains("//@ param T") && source.starts_with("// "));
    let kernel = text(&["show", "rope_fwd", "--expanded", "--set", "T=bf16", "--set", "V=8"]);
    assert!(kernel.starts_with(".visible .entry rope_fwd(") && kernel.ends_with("}\n") && !kernel.contains("//@"));
    assert!(kernel.contains("ld.global.v4.b32"), "{kernel}");
    assert!(refusal(&["show", "rope", "--expanded", "--set", "T"]).contains("--set T: no value"));
}

#[test]
fn run_holds_a_family_against_its_references() {
    let rows = objects(&["run", "rope", "--checks"]);
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row["ok"] == true && row["error"].as_f64() <= row["bound"].as_f64()), "{rows:?}");
    let shown = text(&["run", "token_logprob_fwd", "--case", "f16"]);
    assert!(shown.contains("with") && shown.contains("  ok ") && shown.contains("\n2 cases"), "{shown}");
    assert!(refusal(&["run", "rope", "--device", "cpu"]).contains("--device cpu"));
    assert!(refusal(&["run", "rope", "--case", "f99"]).contains("--case f99"));
}

#[test]
fn results_are_kept_and_compared_bit_by_bit() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("golden.safetensors");
    let path = file.display().to_string();
    text(&["run", "rope", "--save", &path]);
    let differ = |rows: Vec<Value>| rows.iter().map(|row| row["against"]["differ"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(differ(objects(&["run", "rope", "--against", &path])), 0);
    assert!(text(&["run", "rope", "--against", &path]).contains("elements have the bits that were kept"));
    // The last number of the file.
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(differ(objects(&["run", "rope", "--against", &path])), 1);
    assert_eq!(objects(&["run", "swiglu", "--against", &path])[0]["against"]["of"], 0);
    std::fs::write(&file, &bytes[..100]).unwrap();
    let output = kiln(&["run", "rope", "--against", &path]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && said.contains("golden.safetensors") && said.contains("--save"),
        "{said}"
    );
}

#[test]
fn trace_shows_what_registers_hold() {
    // y = 2 x: of the second block the second warp, and in it the fourth lane.
    let steps =
        objects(&["trace", "scale_fwd", "--case", "by two blocks", "--block", "1", "--warp", "1", "--lane", "3"]);
    let find = |start: &str| {
        let step = steps.iter().find(|step| step["text"].as_str().is_some_and(|text| text.starts_with(start)));
        step.unwrap_or_else(|| panic!("{start}: {steps:?}"))
    };
    let written = |step: &Value| step["writes"].as_object().unwrap().values().next().cloned();
    assert_eq!(written(find("mov.u32 %i, %tid.x")), Some(35.into()));
    let (load, scale) = (find("ld.global.v4.f32"), find("mul.f32"));
    let number = |x: &Value| x.as_f64().unwrap() as f32;
    let x = number(&load["writes"]["%a0"]);
    assert_eq!((number(&scale["reads"]["%a0"]), number(&scale["reads"]["%c"])), (x, 2.0));
    assert_eq!(number(&scale["writes"]["%a0"]), 2.0 * x);
    assert!(steps.iter().all(|step| step["mask"] == 0xffff_ffffu32 || step["on"] == false), "{steps:?}");
    for (flags, said) in [
        (["--block", "2"], "--block 2: the launch has 2 blocks"),
        (["--warp", "8"], "--warp 8: a block has 8 warps"),
        (["--lane", "32"], "--lane"),
    ] {
        let said_it = refusal(&[&["trace", "scale_fwd", "--case", "by two blocks"][..], &flags].concat());
        assert!(said_it.contains(said), "{said_it}");
    }
    assert!(refusal(&["trace", "attention"]).contains("several kernels"));
}

#[test]
fn profile_counts_and_draws() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let shown =
        text(&["profile", "product_tiled", "--case", "tiles without", "--out", &path("a.svg"), "--card", "a100"]);
    assert!(shown.contains("32.00 cycles a pass") && shown.contains("on a100"), "{shown}");
    let svg = std::fs::read_to_string(path("a.svg")).unwrap();
    assert!(
        svg.contains("product_tiled") && svg.contains("32.00 cycles a pass") && svg.contains("4.0 of 4.0"),
        "{svg}"
    );
    text(&["profile", "gemm", "--out", &path("b.png")]);
    assert!(Path::new(&path("b.png")).metadata().unwrap().len() > 1000);
    let gemm = &objects(&["profile", "gemm"])[0];
    // An mma is 16 x 8 x 16 products.
    assert_eq!(gemm["classes"]["mma"], 128 * 128 * 64 / 2048);
    assert_eq!(gemm["shared"]["steps"], gemm["shared"]["ideal"]);
    assert!(gemm["least_seconds"]["global"].as_f64() > gemm["least_seconds"]["tensor"].as_f64());
    let lines: u64 = gemm["lines"].as_array().unwrap().iter().filter_map(|line| line["warp"].as_u64()).sum();
    assert_eq!(gemm["warp"], lines);
    assert_eq!(objects(&["profile", "attention"]).len(), 4);
    assert!(refusal(&["profile", "gemm", "--card", "voodoo2"]).contains("use one of a100"));
    assert!(refusal(&["profile", "gemm", "--out", "x.gif"]).contains("neither .svg nor .png"));
}

#[test]
fn assemble_says_where_there_is_an_assembler() {
    let output = kiln(&["assemble", "rope", "--ptxas", "/nowhere/ptxas"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("/nowhere/ptxas (from --ptxas): it does not run") && said.contains("pip install"), "{said}");
    if let Ok(ptxas) = std::env::var("KILN_PTXAS") {
        let rows = objects(&["assemble", "rope", "--ptxas", &ptxas]);
        assert!(rows.len() == 6 && rows.iter().all(|row| row["spills"]["sm_90"][0] == 0), "{rows:?}");
    }
}

#[test]
fn an_unknown_name_is_met_with_the_nearest() {
    for command in ["list", "show", "run", "trace", "profile"] {
        let said = refusal(&[command, "atention_fwd"]);
        assert!(said.contains("is called atention_fwd") && said.contains("did you mean attention_fwd?"), "{said}");
    }
}

#[test]
fn a_kernel_of_ones_own_takes_the_place_of_kilns() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("my.ptx");
    let file = path.to_str().expect("UTF-8");
    let source = text(&["show", "activation"]);
    std::fs::write(&path, &source).expect("a file");
    let rows = objects(&["run", file, "--against", "gelu_tanh", "--case", "f32"]);
    assert!(!rows.is_empty());
    for row in &rows {
        assert_eq!((&row["ok"], &row["instructions"]["own"]), (&true.into(), &row["instructions"]["kiln"]), "{row}");
    }
    // One with its own name alone, in which x counts twice, is no gelu; cases that need others are left out.
    let wrong = source.replace(
        "//@ activate(F, %x${j}, %x${j})",
        "//@ activate(F, %x${j}, %x${j})\n    add.f32 %x${j}, %x${j}, %x${j};",
    );
    assert_ne!(wrong, source);
    std::fs::write(&path, wrong).expect("a file");
    let failed = kiln(&["run", file, "--against", "gelu_tanh", "--case", "f32"]);
    let said = String::from_utf8_lossy(&failed.stdout).into_owned() + &String::from_utf8_lossy(&failed.stderr);
    assert!(failed.status.code() == Some(1) && said.contains("FAILED") && said.contains("cases failed"), "{said}");
    assert!(refusal(&["run", file]).contains("stand for"));
    assert!(refusal(&["run", file, "--against", "nothing_at_all"]).contains("nothing_at_all"));
    std::fs::write(&path, ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry mine()\n{\n    ret;\n}\n")
        .expect("a file");
    assert!(refusal(&["run", file, "--against", "gelu_tanh"]).contains("kiln kernels show activation"));
}
