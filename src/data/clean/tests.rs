use super::rules::RULES;

#[test]
fn the_page_names_every_rule() {
    let page = include_str!("../../../docs/clean.md");
    let missing: Vec<&str> =
        RULES.iter().map(|rule| rule.name).filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn rules_stand_in_the_table_where_their_number_says() {
    for (number, info) in RULES.iter().enumerate() {
        assert_eq!(info.rule as usize, number);
    }
    assert!(RULES.len() <= 64, "a set of rules is 64 bits");
}
