use super::*;

fn all(text: &str) -> String {
    repair(text, &Options { trailing_spaces: true, ..Options::default() }).0.into_owned()
}

/// `text` in UTF-8, read as Windows-1252.
fn misread(text: &str) -> String {
    encoding_rs::WINDOWS_1252.decode_without_bom_handling(text.as_bytes()).0.into_owned()
}

#[test]
fn text_that_needs_nothing_is_borrowed() {
    for text in [
        "",
        "plain\ttext\n",
        "naïve café, “quoted” – dashes…",
        "Ελληνικά и русский 日本語 한국어 עברית العربية",
        "👩\u{200d}💻 🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
        "می\u{200c}خواهم",
    ] {
        let (repaired, repairs) = repair(text, &Options::default());
        assert!(matches!(repaired, Cow::Borrowed(_)) && repairs.is_none(), "{text:?} became {repaired:?}");
    }
}

#[test]
fn utf_8_that_was_misread_is_read_again_once_or_twice() {
    for text in [
        "café",
        "It’s “fine” – really…",
        "sûr",
        "Ça va à Noël",
        "naïve façade",
        "привет, мир",
        "Ελληνικά",
        "日本語の文",
        "I ♥ you 😀",
        "Škoda, Łódź, Žižek",
        "£5 and 5 €",
    ] {
        let once = misread(text);
        assert_eq!(all(&once), text, "from {once:?}");
        assert_eq!(all(&misread(&once)), text, "from twice {once:?}");
        let latin1: String = text.bytes().map(char::from).collect();
        assert_eq!(all(&latin1), text, "from Latin-1");
    }
    let mixed = format!("{}\nplain\nwhole café\n", misread("one café"));
    assert_eq!(all(&mixed), "one café\nplain\nwhole café\n");
    assert_eq!(repair(&mixed, &Options::default()).1.mojibake, 1);
}

#[test]
fn what_somebody_wrote_stays() {
    for text in [
        "DÉJÀ VU: «CAFÉ»",
        "SÃO PAULO AMANHÔ",
        "„Spaß“ und „Fuß“",
        "CAFÉ» he said",
        "Spaß“ und so",
        "voilà…",
        "5 × 3² = 45 m²",
        "MÖTLEY CRÜE®",
        "Â£5 it said on “the tin”",
        "à €5",
    ] {
        assert_eq!(all(text), text);
    }
}

#[test]
fn control_characters_and_invisible_ones_go() {
    assert_eq!(all("a\0b\u{7}c\u{7f}d\u{9b}e"), "abcde");
    assert_eq!(all("\x1b[1;31mred\x1b[0m and \x1b[2Kmore"), "red and more");
    assert_eq!(all("\u{feff}a\u{200b}b\u{ad}c\u{202e}d\u{2060}e\u{ffff}"), "abcde");
    assert_eq!(all("a\u{200d}b\u{200c} ש\u{200d}"), "ab ש");
    assert_eq!(all("hid\u{e0068}\u{e0069}den"), "hidden");
    assert_eq!(all("a\r\nb\rc\u{c}d\u{85}e\u{2028}f\n"), "a\nb\nc\nd\ne\nf\n");
    assert_eq!(all("a  \nb\t\n\nc \u{a0}"), "a\nb\n\nc");
    assert_eq!(all("e\u{301}"), "é");
    let (_, repairs) = repair("a\r\n\0\u{200b}e\u{301}", &Options::default());
    let expected = Repairs { controls: 1, invisible: 1, line_ends: 1, nfc: 1, ..Repairs::default() };
    assert_eq!(repairs, expected);
}

#[test]
fn what_is_switched_off_stays() {
    let off = Options {
        mojibake: false,
        controls: false,
        invisible: false,
        line_ends: false,
        nfc: false,
        trailing_spaces: false,
    };
    let text = "cafÃ© \r\n\u{200b}\u{7}e\u{301}";
    assert_eq!(repair(text, &off), (Cow::Borrowed(text), Repairs::default()));
    assert_eq!(repair(text, &Options { controls: true, ..off }).0, "cafÃ© \r\n\u{200b}e\u{301}");
    assert_eq!(repair(text, &Options { mojibake: true, ..off }).0, "café \r\n\u{200b}\u{7}e\u{301}");
}

/// Over pieces that act on each other.
#[test]
fn repairing_twice_is_repairing_once() {
    let pieces = [
        "Ã",
        "©",
        "â",
        "€",
        "™",
        "\u{80}",
        "\u{99}",
        "Â",
        "\u{ad}",
        "\u{a0}",
        "ƒ",
        "e",
        "\u{301}",
        "\u{327}",
        "\u{345}",
        "\u{200b}",
        "\u{200d}",
        "\u{200c}",
        "\u{feff}",
        "\r",
        "\n",
        "\u{85}",
        "\u{2028}",
        "\0",
        "\x1b",
        "[",
        "1",
        "m",
        " ",
        "a",
        "Z",
        "ß",
        "”",
        "ð",
        "Ÿ",
        "˜",
        "€",
        "\u{1f3f4}",
        "\u{e0067}",
        "\u{e007f}",
        "\u{958}",
        "\u{212b}",
        "é",
        "한",
        "\u{1100}",
        "\u{1161}",
        "\u{fffe}",
        "и",
        "Ð",
        "¸",
        "\u{f0}",
        "\u{9f}",
        "\u{98}",
        "\u{a8}",
        "\u{1}",
    ];
    let options = [
        Options::default(),
        Options { trailing_spaces: true, ..Options::default() },
        Options { controls: false, line_ends: false, ..Options::default() },
    ];
    let mut state = 12345u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let mut changed = 0;
    for round in 0..20_000 {
        let text: String = (0..1 + random(12)).map(|_| pieces[random(pieces.len())]).collect();
        let options = &options[round % options.len()];
        let (once, repairs) = repair(&text, options);
        let (twice, none) = repair(&once, options);
        assert_eq!(once, twice, "from {text:?}");
        assert!(none.is_none(), "{text:?} to {once:?}: {none:?}");
        changed += usize::from(!repairs.is_none());
    }
    assert!(changed > 10_000, "{changed}");
}

#[test]
fn bytes_are_decoded_by_what_they_are() {
    let german = "Die Straße ist schön, und über den Flüssen wächst Gras. Äpfel, Öl und Übung machen Spaß.";
    let russian = "Старая мельница у реки не работает уже много лет, и никто не помнит её хозяина.";
    let japanese = "古い水車は川のそばにあり、もう何年も回っていません。";
    let is = |bytes: &[u8], stated, text: &str, encoding| {
        let decoded = decode(bytes, stated);
        assert_eq!((&*decoded.text, decoded.encoding, decoded.damaged), (text, encoding, 0));
    };
    is(german.as_bytes(), None, german, None);
    is(&[b"\xef\xbb\xbf", german.as_bytes()].concat(), None, german, None);
    for (text, label) in
        [(german, "windows-1252"), (russian, "windows-1251"), (russian, "KOI8-U"), (japanese, "Shift_JIS")]
    {
        let encoding = Encoding::for_label(label.as_bytes()).unwrap();
        is(&encoding.encode(text).0, None, text, Some(encoding.name()));
    }
    let utf16: Vec<u8> = "\u{feff}short".encode_utf16().flat_map(u16::to_be_bytes).collect();
    is(&utf16, None, "short", Some("UTF-16BE"));
    // What a page says of itself counts, unless it is plainly wrong.
    is(b"\xe9", Some("windows-1251"), "й", Some("windows-1251"));
    is("é".as_bytes(), Some("latin1"), "é", None);

    let decoded = decode(b"\xc3\xa9t\xc3\xa9 \xff \xc3\xa9", None);
    assert_eq!((&*decoded.text, decoded.encoding, decoded.damaged), ("été \u{fffd} é", Some("UTF-8"), 1));
}

use encoding_rs::Encoding;
