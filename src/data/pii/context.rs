//! What the words before a number say that it is.

/// What a number is by the words before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// Nothing is said.
    None,
    /// A telephone number.
    Phone,
    /// A card.
    Card,
    /// A social security number.
    Ssn,
    /// An account.
    Account,
    /// The number of an order, a part, a book, a version: of a thing.
    Thing,
    /// A version of a program, or a section of a text.
    Version,
}

/// How many bytes before a number are looked at, and how many words.
const BYTES: usize = 96;
const WORDS: usize = 6;
/// Words that are looked at for something certain.
const FAR: usize = 10;

/// What the nearest word before `at` that says something says, in the same sentence.
pub(super) fn before(text: &str, at: usize) -> Context {
    words(text, at, WORDS, |said| said != Context::None)
}

/// Whether a word before `at` says `context`, in the same sentence and whatever others say.
pub(super) fn says(text: &str, at: usize, context: Context) -> bool {
    words(text, at, FAR, |said| said == context) == context
}

/// Goes back over at most `most` words of the sentence before `at`; the first context that is `wanted`.
fn words(text: &str, at: usize, most: usize, wanted: impl Fn(Context) -> bool) -> Context {
    let mut start = at.saturating_sub(BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let mut rest = &text[start..at];
    for _ in 0..most {
        let end = rest.trim_end_matches(|c: char| !c.is_alphanumeric() && c != '§' && c != '#').len();
        let between = &rest[end..];
        let word_start = rest[..end].rfind(|c: char| !c.is_alphanumeric()).map_or(0, |at| at + next(rest, at));
        let word = &rest[word_start.min(end)..end];
        // A full stop behind a longer word ends the sentence; "tel." goes on.
        if (between.starts_with(['.', '!', '?', ';']) && between[1..].starts_with([' ', '\n']) && word.len() > 4)
            || between.contains("\n\n")
        {
            return Context::None;
        }
        if end == 0 {
            return Context::None;
        }
        if rest[..end].ends_with(['#', '§']) {
            let said = if rest[..end].ends_with('#') { Context::Thing } else { Context::Version };
            return if wanted(said) { said } else { Context::None };
        }
        let said = said(&word.to_lowercase());
        if wanted(said) {
            return said;
        }
        rest = &rest[..word_start.min(end)];
    }
    Context::None
}

fn next(text: &str, at: usize) -> usize {
    text[at..].chars().next().map_or(1, char::len_utf8)
}

fn said(word: &str) -> Context {
    match word {
        "phone" | "phones" | "telephone" | "tel" | "telefon" | "téléphone" | "teléfono" | "telefono" | "telefone"
        | "fax" | "telefax" | "mobile" | "mobil" | "mob" | "móvil" | "cell" | "cellphone" | "cellular" | "handy"
        | "portable" | "gsm" | "call" | "calls" | "called" | "calling" | "caller" | "dial" | "dialled" | "dialed"
        | "ring" | "text" | "texted" | "sms" | "whatsapp" | "signal" | "telegram" | "viber" | "hotline"
        | "helpline" | "landline" | "voicemail" | "pager" | "ph" | "tlf" | "tfn" | "rufnummer" | "telefonnummer"
        | "handynummer" | "anrufen" | "appelez" | "llame" | "phoned" | "reach" | "reached" => Context::Phone,
        "card" | "cards" | "visa" | "mastercard" | "amex" | "discover" | "credit" | "debit" | "cc" | "pan"
        | "kreditkarte" | "jcb" | "diners" | "maestro" | "unionpay" | "carte" | "tarjeta" | "charge" | "charged"
        | "paid" | "payment" => Context::Card,
        "ssn" | "ssns" | "social" | "security" | "ss" | "taxpayer" => Context::Ssn,
        "iban" | "account" | "konto" | "bank" => Context::Account,
        "order" | "orders" | "invoice" | "tracking" | "parcel" | "shipment" | "serial" | "part" | "parts" | "isbn"
        | "issn" | "ean" | "upc" | "barcode" | "sku" | "ref" | "reference" | "ticket" | "batch" | "lot" | "model"
        | "case" | "item" | "catalog" | "catalogue" | "article" | "product" | "doi" | "id" | "imei" | "issue"
        | "bug" | "pmid" | "patent" | "bestellung" | "bestellnummer" | "rechnung" | "artikel" | "coordinates"
        | "coordinate" | "latitude" | "longitude" | "lat" | "lon" | "timestamp" | "epoch" | "hash" | "checksum"
        | "code" | "policy" | "claim" | "receipt" | "registration" | "permit" | "job" | "form" | "licence"
        | "license" | "confirmation" | "booking" | "record" | "file" | "accession" | "population" | "seed" => {
            Context::Thing
        }
        "version" | "versions" | "ver" | "v" | "release" | "releases" | "released" | "build" | "firmware"
        | "driver" | "section" | "sections" | "chapter" | "clause" | "figure" | "fig" | "table" | "appendix"
        | "paragraph" | "rule" | "rev" | "revision" | "update" | "updated" | "upgrade" | "upgraded" | "patch"
        | "kernel" | "software" | "plugin" | "package" | "library" | "sdk" | "oid" | "chrome" | "windows" | "step"
        | "heading" | "equation" | "exercise" | "level" | "sect" => Context::Version,
        _ => Context::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_of_the_sentence_says_what_a_number_is() {
        let context = |text: &str| before(text, text.len());
        assert_eq!(context("Her phone number is "), Context::Phone);
        assert_eq!(context("Tel. "), Context::Phone);
        assert_eq!(context("phone me about order "), Context::Thing);
        assert_eq!(context("About the order: call "), Context::Phone);
        assert_eq!(context("I lost my phone yesterday. "), Context::None);
        assert_eq!(context("He said "), Context::None);
        assert_eq!(context("see § "), Context::Version);
        assert_eq!(context("order #"), Context::Thing);
        assert_eq!(context("phone\n\n"), Context::None);
        assert_eq!(context(""), Context::None);
        assert_eq!(context("Téléphone : "), Context::Phone);
        assert_eq!(context("phone one two three four five six "), Context::None);
        assert_eq!(context("a card is on file: "), Context::Thing);
        let far = "The card of Ann, whose order came, is on file: ";
        assert!(says(far, far.len(), Context::Card) && !says(far, far.len(), Context::Phone));
        let other = "Her card is missing. Order ";
        assert!(!says(other, other.len(), Context::Card), "another sentence");
    }
}
