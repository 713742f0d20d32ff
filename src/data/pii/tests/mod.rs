//! One table a kind: lines with personal data between ⟦ and ⟧, and lines that look like it and hold none.

use super::*;

mod tables;

/// A line without its marks, and what they enclose.
fn unmarked(line: &str) -> (String, Vec<(usize, usize)>) {
    let (mut text, mut spans, mut start) = (String::new(), Vec::new(), 0);
    for c in line.chars() {
        match c {
            '⟦' => start = text.len(),
            '⟧' => spans.push((start, text.len())),
            c => text.push(c),
        }
    }
    (text, spans)
}

/// Checks a kind's table: exactly what is marked is found, alone and together with every other kind.
fn check(kind: Kind, positives: &[&str], negatives: &[&str]) {
    assert!(positives.len() >= 20 && negatives.len() >= 20, "{kind:?}: {} and {}", positives.len(), negatives.len());
    let mut wrong = Vec::new();
    for line in positives.iter().chain(negatives) {
        let (text, expected) = unmarked(line);
        assert_eq!(expected.is_empty(), negatives.contains(line), "{line}");
        let padded = format!("One line before.\n{text}\nOne line behind.");
        let alone = find(&text, &Kinds::of(&[kind]));
        let within = find(&padded, &Kinds::of(&[kind]));
        let all = find(&text, &Kinds::default());
        let all = all.iter().filter(|span| span.kind == kind).copied().collect();
        let places =
            |spans: &Vec<Span>, shift| spans.iter().map(|s| (s.start - shift, s.end - shift)).collect::<Vec<_>>();
        let found =
            [places(&alone, 0), places(&within, 17), if kind as u8 > 6 { expected.clone() } else { places(&all, 0) }];
        if found.iter().any(|found| *found != expected) {
            let texts: Vec<_> = alone.iter().map(|s| &text[s.start..s.end]).collect();
            wrong.push(format!("{line}\n    found {texts:?}, {found:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{kind:?}, {} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn e_mail_addresses_are_found_and_what_only_has_an_at_sign_is_not() {
    check(Kind::Email, tables::EMAIL, tables::NO_EMAIL);
}

#[test]
fn telephone_numbers_are_found_and_other_numbers_are_not() {
    check(Kind::Phone, tables::PHONE, tables::NO_PHONE);
}

#[test]
fn addresses_of_the_net_are_found_and_versions_and_times_are_not() {
    check(Kind::Ip, tables::IP, tables::NO_IP);
}

#[test]
fn ibans_are_found_by_their_checksum() {
    check(Kind::Iban, tables::IBAN, tables::NO_IBAN);
}

#[test]
fn cards_are_found_by_issuer_and_checksum() {
    check(Kind::Card, tables::CARD, tables::NO_CARD);
}

#[test]
fn social_security_numbers_are_found_where_they_can_have_been_given_out() {
    check(Kind::Ssn, tables::SSN, tables::NO_SSN);
}

#[test]
fn secrets_are_found_and_placeholders_and_hashes_are_not() {
    // Written in two halves, so that nobody's scanner takes these for real ones.
    let join = |lines: &[&str]| lines.iter().map(|line| line.replace('~', "")).collect::<Vec<_>>();
    let (positives, negatives) = (join(tables::SECRET), join(tables::NO_SECRET));
    let strs = |lines: &'_ Vec<String>| -> Vec<&'static str> {
        lines.iter().map(|line| &*Box::leak(line.clone().into_boxed_str())).collect()
    };
    check(Kind::Secret, &strs(&positives), &strs(&negatives));
}

#[test]
fn street_addresses_are_found_where_asked_for() {
    check(Kind::Address, tables::ADDRESS, tables::NO_ADDRESS);
}

#[test]
fn names_come_from_the_users_list() {
    let names = Names::new("# villagers\nAda Quill\n\nQuill\nJürgen Maß\n").unwrap();
    let kinds = Kinds::of(&[]).with_names(names);
    let text = "Ada Quill met Jürgen Maß and old Quill, not Quills, Squill or ada quill.";
    let found: Vec<&str> = find(text, &kinds).iter().map(|s| &text[s.start..s.end]).collect();
    assert_eq!(found, ["Ada Quill", "Jürgen Maß", "Quill"]);
    assert!(Names::new("Al\n").unwrap_err().to_string().contains("Al"));
}

#[test]
fn kinds_are_looked_for_only_where_asked_for() {
    let text = "ann@example.org, +44 20 7946 0958, 203.0.113.7";
    let kinds = |kinds: &[Kind]| find(text, &Kinds::of(kinds)).iter().map(|s| s.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&Kind::ALL[..7]), [Kind::Email, Kind::Phone, Kind::Ip]);
    assert_eq!(kinds(&[Kind::Ip, Kind::Card]), [Kind::Ip]);
    assert_eq!(kinds(&[]), []);
    assert!(Kind::ALL.into_iter().all(|kind| Kind::parse(kind.name()) == Some(kind)));
}

#[test]
fn of_two_that_overlap_the_longer_one_stays() {
    let text = "https://ann:s3cretpass@db.example.org/ and 4111-1111-1111-1111";
    let found = find(text, &Kinds::default());
    let found: Vec<_> = found.iter().map(|s| (s.kind, &text[s.start..s.end])).collect();
    assert_eq!(found, [(Kind::Secret, "s3cretpass"), (Kind::Card, "4111-1111-1111-1111")]);
}

/// Texts of the bytes that matter, in every order: spans are in order, apart, and between characters.
#[test]
fn whatever_the_text_spans_are_in_order_and_between_characters() {
    let pieces = [
        "@",
        ".",
        "+",
        "(",
        ")",
        "-",
        " ",
        "0",
        "1",
        "4",
        "9",
        "555",
        "12",
        "2024",
        ":",
        "::",
        "=",
        "a",
        "e",
        "DE89",
        "é",
        "ß",
        "\u{a0}",
        "–",
        "/",
        "//",
        "eyJ",
        "AKIA",
        "ghp_",
        "-----BEGIN ",
        "PRIVATE KEY-----",
        "(at)",
        "[dot]",
        "key",
        "password",
        "\"",
        "\n",
        "日",
        "tel",
        "😀",
        "#",
        "§",
        "fe80",
        "com",
        "git",
        "http",
    ];
    let kinds = Kinds::of(&Kind::ALL).with_names(Names::new("日日日\ncom").unwrap());
    let mut state = 99u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let mut found = 0;
    for _ in 0..40_000 {
        let text: String = (0..random(24)).map(|_| pieces[random(pieces.len())]).collect();
        let mut end = 0;
        for span in find(&text, &kinds) {
            assert!(span.start >= end && span.end > span.start, "{text:?}: {span:?}");
            assert!(text.get(span.start..span.end).is_some(), "{text:?}: {span:?}");
            (end, found) = (span.end, found + 1);
        }
    }
    assert!(found > 1000, "{found}");
}

/// Runs of one byte and of pairs, where a careless search would look at everything again from every byte.
#[test]
fn no_text_costs_more_than_linear_time() {
    let start = std::time::Instant::now();
    for piece in [
        "1",
        "1 ",
        "1-",
        "(1) ",
        "a@",
        "@",
        "a.",
        ":",
        "a:",
        "1:",
        "=",
        "key=",
        "-----BEGIN PRIVATE KEY-----",
        "eyJ",
        "eyJaaaaaaaaaa.",
        "(at)",
        "1.",
        "DE89 ",
        "0",
        "+1",
        "é@",
        "password: a",
        "http://a:",
    ] {
        find(&piece.repeat(200_000 / piece.len()), &Kinds::of(&Kind::ALL[..8]));
    }
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
