//! The `//@` directives.

use kiln::device::ptx::expand::{Expanded, expand};
use kiln::device::ptx::{Names, Place, Value};

fn expanded(text: &str) -> Expanded {
    expand(text, &Names::new()).unwrap_or_else(|problem| panic!("{problem}"))
}

#[test]
fn loops_conditions_and_macros_expand_to_plain_lines() {
    let text = "\
//@ param N = 2
//@ let M = N*2
head ${M};          // a comment keeps its ${braces}
//@ for i in 0..M step 3
    a${i}, ${i*i};
//@ end
//@ if N == 3
three
//@ else if N == 2
two
//@ else
many
//@ end
//@ macro inner(x)
in ${x} ${@};
//@ end
//@ macro outer(x, y)   // takes two
    //@ let s = x + 1
    out ${s} ${y};
    //@ inner(${y}0)
    //@ inner([%a+4])
//@ end
    //@ outer(N, %r)
//@ outer(7, max)
tail
";
    let lines = expanded(text).text;
    let expected = "\
head 4;          // a comment keeps its ${braces}
    a0, 0;
    a3, 9;
two
    out 3 %r;
in %r0 2;
in [%a+4] 3;
    out 8 max;
in max0 5;
in [%a+4] 6;
tail
";
    assert_eq!(lines, expected);
}

#[test]
fn parameters_are_overridden_and_reported() {
    let text = "//@ param TY = \"bf16\"\n//@ param N = 4\n//@ if TY == \"f16\"\nhalf ${N}\n//@ end\n";
    let names: Names = [("TY".to_owned(), Value::from("f16")), ("N".to_owned(), Value::parse("8"))].into();
    let result = expand(text, &names).unwrap();
    assert_eq!(result.text, "half 8\n");
    assert_eq!(result.params, [("TY".to_owned(), Value::from("f16")), ("N".to_owned(), Value::Int(8))]);
    let problem = expand(text, &[("M".to_owned(), Value::Int(1))].into()).unwrap_err();
    assert_eq!(problem.to_string(), "the kernel has no parameter `M`");
    assert_eq!(problem.hint, "it has: TY, N");
}

#[test]
fn every_line_knows_where_it_came_from() {
    let text = "\
first
//@ macro inner(x)
  mov ${x}, ${x + 1}, end;
//@ end
//@ macro outer()
//@ inner(10)
//@ end
//@ for i in 0..2
//@ outer()
//@ end
";
    let result = expanded(text);
    assert_eq!(result.text, "first\n  mov 10, 11, end;\n  mov 10, 11, end;\n");
    let place = |line, column| result.place(line, column);
    assert_eq!(place(1, 3), Place { line: 1, column: 3, calls: vec![] });
    // Before the first expression, in it, between the two, in the second, behind it.
    for (column, source) in [(3, 3), (7, 7), (8, 7), (9, 11), (11, 13), (12, 13), (13, 21), (15, 23)] {
        assert_eq!(place(3, column), Place { line: 3, column: source, calls: vec![6, 9] }, "column {column}");
    }
}

#[test]
fn a_wrong_directive_is_refused_at_its_place() {
    for (text, message) in [
        ("x\n//@ for i in 0..2\ny\n", "2: this has no `//@ end`"),
        ("//@ end\n", "1:8: `//@ end` closes nothing"),
        ("//@ loop 3\n", "1: unknown directive `loop`"),
        ("//@ foo(3)\n", "1: unknown macro `foo`"),
        ("//@ macro f(a)\n//@ end\n//@ f(1, 2)\n", "3:6: `f` takes 1 arguments, 2 are given"),
        ("//@ let = 3\n", "1:9: expected `let NAME = value`"),
        ("//@ let N 3\n", "1:9: expected `let N"),
        ("//@ param N\n", "1:11: expected `param NAME = value`"),
        ("//@ for i of 0..2\n//@ end\n", "1:9: expected `for v in a..b` or `for v in a..b step s`"),
        ("//@ for i in 0..2 step 0\n//@ end\n", "1:9: the step is 0; it must be positive"),
        ("//@ let T = \"x\"\n//@ for i in 0..T\n//@ end\n", "2:17: a range wants numbers, not \"x\""),
        ("  mov ${3, 4;\n", "1:7: `${` has no `}`"),
        ("  mov ${3, 4};\n", "1:10: `,` does not belong to the expression `3, 4`"),
        ("  mov ${M}, 4;\n", "1:9: unknown name `M`"),
        ("  mov ${@};\n", "1:9: `${@}` has a value inside of a macro only"),
        ("//@ macro f()\n//@ f()\n//@ end\n//@ f()\n", "2: `f` calls itself without an end"),
        (
            "//@ macro f(a)\nx ${a + b};\n//@ end\n//@ macro g()\n//@ f(1)\n//@ end\n//@ g()\n",
            "2:9: unknown name `b` (in the macro called in line 5, called in line 7)",
        ),
        ("//@ for i in 0..9000000000000000000\n//@ end\n", "1: more than 1048576 turns of loops and calls"),
        (&"//@ if 1\n".repeat(1000), "1: this has no `//@ end`"),
        (&("//@ if 1\n".repeat(1000) + &"//@ end\n".repeat(1000)), "128: more than 128 directives within each other"),
        ("//@ for i in 0..600000\nx\nx\n//@ end\n", "2: the kernel expands to more than 1048576 lines"),
    ] {
        let problem = expand(text, &Names::new()).expect_err(text).to_string();
        assert!(problem.starts_with(message), "{text}\nexpected {message}\n   found {problem}");
    }
}
