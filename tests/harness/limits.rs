//! The README's figures, so that a test pushes against what a user was told.

/// The value of this row of the README's table *Limits*: a number, bytes or whole seconds; of a range its end.
#[track_caller]
pub fn limit(name: &str) -> usize {
    let readme = include_str!("../../README.md");
    let table = readme.split_once("\n## Limits\n").expect("the section").1;
    let row = table.lines().find_map(|line| line.strip_prefix(&format!("| {name} | ")));
    let value = row.and_then(|row| row.split(" | ").next()).unwrap_or_else(|| panic!("no limit is called {name}"));
    let words: Vec<&str> = value.split(' ').collect();
    let digits = |word: &str| word.replace(',', "").parse::<usize>();
    let at = words.iter().rposition(|word| digits(word).is_ok()).unwrap_or_else(|| panic!("{name}: {value}"));
    let unit = match words.get(at + 1).copied() {
        Some("MiB") => 1 << 20,
        Some("KiB") => 1 << 10,
        _ => 1,
    };
    digits(words[at]).expect("just read") * unit
}
