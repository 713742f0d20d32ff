//! `kiln bench` as people and scripts meet it. Nothing here depends on how fast the machine is.

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn bench(dir: &Path, args: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.current_dir(dir).arg("bench").args(args.split(' ')).args(["--threads", "1"]).stdin(Stdio::null());
    command.env("XDG_CACHE_HOME", dir.join("cache")).env_remove("KILN_PYTHON");
    command
}

/// Standard output as the JSON objects that it must be, one a line; the first one is the machine's.
#[track_caller]
fn rows(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let machine = rows.remove(0);
    assert_eq!(machine["bench"], "ceilings", "{machine}");
    for key in ["fma_gflops", "read_gb_per_s", "copy_gb_per_s", "triad_gb_per_s"] {
        assert!(machine[key].as_f64().unwrap() > 0.0, "{key}: {machine}");
    }
    rows
}

/// What every row has.
#[track_caller]
fn check(row: &Value, bench: &str, case: &str, unit: &str) {
    assert_eq!([&row["bench"], &row["case"], &row["unit"]], [bench, case, unit], "{row}");
    let [median, min, max, share] = ["median", "min", "max", "share_of_limit"].map(|key| row[key].as_f64().unwrap());
    assert!(0.0 < min && min <= median && median <= max && share > 0.0, "{row}");
    assert!(row["threads"] == 1 && (1..=2).contains(&row["n"].as_u64().unwrap()), "{row}");
    assert!(row["calm"].is_boolean() && row["dropped"].is_u64() && row["limit"].is_string(), "{row}");
    assert!(!cfg!(target_os = "linux") || row["peak_rss_mb"].as_f64().unwrap() > 1.0, "{row}");
}

#[test]
fn kernels_give_a_row_for_each_part() {
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &str| rows(&bench(dir.path(), &format!("{args} --reps 1 --json")).output().unwrap());
    let both = run("layernorm");
    assert_eq!(both.len(), 2);
    check(&both[0], "layernorm", "layernorm bias=true residual=true 4096x768, forward", "GB/s");
    check(&both[1], "layernorm", "layernorm bias=true residual=true 4096x768, backward", "GB/s");
    let sums = run("ops --only sum");
    let names: Vec<&str> = sums.iter().map(|row| row["case"].as_str().unwrap()).collect();
    let all = ["sum All 4096x768, forward", "sum All 4096x768, backward"];
    assert!(names[..2] == all && names.iter().all(|name| name.starts_with("sum ")), "{names:?}");
    let data = run("data --shard-tokens 20000 --only T256");
    check(&data[0], "data", "B16 T256", "tokens/s");
    assert_eq!(data[0]["tokens"], 4096);
}

#[test]
fn texts_are_encoded_and_learnt_from() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "the old mill by the river. ".repeat(2000)).unwrap();
    let out = rows(&bench(dir.path(), "tokenizer a.txt --vocab 300 --reps 1 --json").output().unwrap());
    assert_eq!(out.len(), 2);
    check(&out[0], "tokenizer", "encode gpt2", "MB/s");
    check(&out[1], "tokenizer", "train 300", "MB/s");
    let wrong = bench(dir.path(), "tokenizer a.txt --against faer").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let wrong = bench(dir.path(), "gelu --against tiktoken").output().unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("kiln bench tokenizer"));
}

#[test]
fn products_end_with_their_geometric_mean() {
    let dir = tempfile::tempdir().unwrap();
    let out =
        rows(&bench(dir.path(), "gemm --shape 8x9x10 --shape 16x8x8 --form tn --reps 1 --json").output().unwrap());
    assert_eq!(out.len(), 3);
    check(&out[0], "gemm", "8x9x10 tn f32", "GFLOP/s");
    check(&out[1], "gemm", "16x8x8 tn f32", "GFLOP/s");
    assert_eq!(out[2]["case"], "geometric mean of 2");
    let [a, b, mean] = [0, 1, 2].map(|i| out[i]["median"].as_f64().unwrap());
    assert!(((a * b).sqrt() / mean - 1.0).abs() < 1e-9, "{a} {b} {mean}");
    // The same from what is counted: 2·M·K·N operations.
    let seconds = out[0]["seconds"].as_f64().unwrap();
    assert!((1440.0 / seconds / 1e9 / a - 1.0).abs() < 1e-9, "{}", out[0]);
}

#[test]
fn a_recipe_is_a_case_of_a_step() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = "[run]\nname = \"small\"\n[model]\nlayers = 1\nheads = 2\nd = 16\n[data]\ntokenizer = \"byte\"\n\
                  [train]\nbatch = 2\ncontext = 16\naccumulate = 3\n";
    std::fs::write(dir.path().join("r.toml"), recipe).unwrap();
    let out = rows(&bench(dir.path(), "step r.toml --reps 1 --json").output().unwrap());
    check(&out[0], "step", "small f32", "tokens/s");
    assert_eq!((&out[0]["tokens"], &out[0]["limit"]), (&json!(96), &json!("fma")));
}

#[test]
fn the_roofline_is_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(dir.path(), "roofline --reps 1 --only layernorm --out a.svg").output().unwrap();
    assert!(output.status.success());
    let svg = std::fs::read_to_string(dir.path().join("a.svg")).unwrap();
    assert!(svg.contains("layernorm 4096x768, bwd") && svg.contains("GFLOP/s"));
}

#[cfg(unix)]
mod peers {
    use super::*;

    /// A peer that notes what it reads and answers always the same.
    fn peer(dir: &Path, name: &str, answer: &str) {
        let script = format!(
            "#!/bin/sh\necho \"$OMP_NUM_THREADS $*\" > {name}.args\necho '{{\"peer\": \"mock\"}}'\n\
             while read line; do echo \"$line\" >> {name}.lines; echo '{answer}'; done\n"
        );
        let path = dir.join(name);
        std::fs::write(&path, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
    }

    fn read(dir: &Path, name: &str) -> String {
        std::fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn a_peer_is_told_the_case_and_takes_turns() {
        let dir = tempfile::tempdir().unwrap();
        peer(dir.path(), "a", "{\"seconds\": 1000, \"peak_rss_mb\": 7}");
        peer(dir.path(), "b", "{\"skip\": \"too hard\"}");
        let mut command = bench(dir.path(), "gemm --shape 8x9x10 --reps 2 --json");
        let output = command.args(["--peer", "sh a one two", "--peer", "./b"]).output().unwrap();
        let out = rows(&output);
        assert_eq!(out.len(), 2);
        let [kiln, mock] = [&out[0], &out[1]];
        assert_eq!([&kiln["peer"], &mock["peer"]], ["kiln", "mock"]);
        assert_eq!((mock["n"].clone(), mock["peak_rss_mb"].as_f64()), (kiln["n"].clone(), Some(7.0)));
        assert!(kiln["ratio"].is_null() && mock["ratio"].as_f64().unwrap() > 1000.0, "{mock}");
        assert_eq!(mock["median"].as_f64(), Some(2.0 * 720.0 / 1000.0 / 1e9));
        assert!(String::from_utf8_lossy(&output.stderr).contains("mock: too hard"));
        assert_eq!(read(dir.path(), "a.args"), "1 one two\n");
        let lines = read(dir.path(), "a.lines");
        let (case, rounds) = lines.split_once('\n').unwrap();
        let case: Value = serde_json::from_str(case).unwrap();
        assert_eq!(case, json!({"bench": "gemm", "m": 8, "k": 9, "n": 10, "form": "nt", "dtype": "f32"}));
        assert!((2..=4).contains(&rounds.len()) && rounds.trim().is_empty(), "a line for each round: {lines:?}");
        assert_eq!(read(dir.path(), "b.lines").lines().count(), 1);
    }

    #[test]
    fn decoding_counts_the_first_token_apart() {
        let dir = tempfile::tempdir().unwrap();
        peer(dir.path(), "a", "{\"seconds\": 100, \"first_seconds\": 50}");
        let args = "decode tiny --prompt 3 --tokens 4 --reps 1 --json --peer ./a";
        let out = rows(&bench(dir.path(), args).output().unwrap());
        check(&out[0], "decode", "tiny f32, prompt 3", "tokens/s");
        let [read, seconds] = ["gb_per_s", "seconds"].map(|key| out[0][key].as_f64().unwrap());
        // The matrices of `tiny` have 10,641,792 elements, its head included.
        assert!((read * seconds / 4.0 / (4.0 * 10_641_792.0 / 1e9) - 1.0).abs() < 1e-9, "{}", out[0]);
        assert_eq!((&out[0]["tokens"], out[1]["median"].as_f64()), (&json!(4), Some(0.04)));
        let [slow, fast] =
            ["min", "max"].map(|key| out[0][key].as_f64().unwrap() / 0.04 * [0.999, 1.001][usize::from(key == "max")]);
        assert!((slow..=fast).contains(&out[1]["ratio"].as_f64().unwrap()), "{out:?}");
        check(&out[2], "decode", "tiny f32, prompt 3, first", "tokens/s");
        assert_eq!(out[3]["median"].as_f64(), Some(3.0 / 50.0));
        let lost = bench(dir.path(), "decode tiny --reps 1 --peer ./absent").output().unwrap();
        assert_eq!(lost.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&lost.stderr).contains("absent"));
    }

    const SMALL: &str = "[run]\nname = \"small\"\n[model]\nlayers = 1\nheads = 2\nd = 64\n[data]\ntokenizer = \"byte\"\n\
                         [train]\ncontext = 32\nbatch = 2\n";

    #[test]
    fn a_gpu_is_timed_by_its_own_marks_and_its_peers_are_told() {
        let dir = tempfile::tempdir().unwrap();
        peer(dir.path(), "py", "{\"seconds\": 1000}");
        let sim = "--reps 1 --json --device sim";
        let args = format!("gemm --shape 64x64x64 --precision bf16 {sim} --against torch --python ./py");
        let out = rows(&bench(dir.path(), &args).output().unwrap());
        assert_eq!([&out[0]["case"], &out[0]["unit"]], ["64x64x64 nt bf16", "GFLOP/s"]);
        // Its result is in bf16 too, and the host's memory says nothing.
        let bytes = out[0]["gb_per_s"].as_f64().unwrap() * out[0]["seconds"].as_f64().unwrap() * 1e9;
        assert!((bytes - 3.0 * 2.0 * 64.0 * 64.0).abs() < 1.0 && out[0]["peak_rss_mb"].is_null(), "{}", out[0]);
        assert!(out[1]["ratio"].as_f64().unwrap() > 1000.0, "{}", out[1]);
        assert!(read(dir.path(), "py.args").ends_with("--threads 1 --serve --device cuda\n"));
        std::fs::write(dir.path().join("small.toml"), SMALL).unwrap();
        let out = rows(&bench(dir.path(), &format!("step small.toml {sim}")).output().unwrap());
        assert!(out[0]["case"] == "small f32" && out[0]["unit"] == "tokens/s", "{out:?}");
        for (args, hint) in [("decode tiny", "on the CPU only"), ("gemm --against torch:keepmem", "the host's memory")]
        {
            let output = bench(dir.path(), &format!("{args} {sim}")).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains(hint), "{args}: {said}");
        }
        let output = bench(dir.path(), "gelu --precision bf16").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("no products"), "{output:?}");
        let out = rows(&bench(dir.path(), "attention --only T1024 --reps 1 --precision bf16 --json").output().unwrap());
        check(&out[0], "attention", "B1 T1024 H12/12 D64 bf16, forward", "GFLOP/s");
    }

    #[test]
    fn scripts_are_carried_along_and_called_with_the_model() {
        let dir = tempfile::tempdir().unwrap();
        peer(dir.path(), "py", "{\"seconds\": 1}");
        std::fs::write(dir.path().join("small.toml"), SMALL).unwrap();
        let args = "step small.toml --reps 1 --json --against torch,torch:compile --python ./py";
        assert_eq!(rows(&bench(dir.path(), args).output().unwrap()).len(), 3);
        // The last one to start.
        let called = read(dir.path(), "py.args");
        assert!(
            called.starts_with("1 ") && called.contains("cache/kiln/peers/gpt_torch.py {\"vocab\":256,"),
            "{called}"
        );
        assert!(called.ends_with("} f32 compile --threads 1 --serve\n"), "{called}");
        for script in [
            "common.py",
            "model.py",
            "gpt_torch.py",
            "pictures_model.py",
            "pictures_torch.py",
            "decode_torch.py",
            "kernels_torch.py",
        ] {
            let [own, carried] =
                [Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers"), dir.path().join("cache/kiln/peers")]
                    .map(|folder| std::fs::read_to_string(folder.join(script)).unwrap());
            assert!(own == carried, "{script}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |args: &str, hint: &str| {
            let output = bench(dir.path(), args).output().unwrap();
            let err = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(2) && err.contains(hint), "{args}: {err}");
        };
        fails("gelu --reps 1 --against torch", "kiln bench --setup-peers");
        if !cfg!(feature = "peers") {
            fails("gemm --reps 1 --shape 8x8x8 --against faer", "--features peers");
        }
        std::fs::write(dir.path().join("l.toml"), "[model]\nkind = \"llama\"\n[data]\ntokenizer = \"byte\"\n").unwrap();
        fails("step l.toml --reps 1 --against torch --python ./py", "GPT-2's kind");
    }
}
