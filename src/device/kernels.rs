pub fn source(_f: &str) -> &'static str {
    ""
}
