//! A strict reader of OpenMetrics text, as far as payrelay uses it; source: the OpenMetrics 1.0 specification.

use std::collections::{BTreeMap, BTreeSet};

/// One family as its lines tell it.
#[derive(Default)]
struct Family {
    kind: String,
    unit: Option<String>,
    has_help: bool,
    /// The labels of its samples without `le`, and of each such series the buckets.
    buckets: BTreeMap<String, Vec<(f64, f64)>>,
    counts: BTreeMap<String, f64>,
}

/// Checks every line; the names of the families, or what is wrong with which line.
pub(crate) fn check(text: &str) -> Result<BTreeSet<String>, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end with # EOF")?;
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in body.split_terminator('\n') {
        let fault = |what: &str| format!("{what}: {line:?}");
        if let Some(meta) = line.strip_prefix("# ") {
            let (word, rest) = meta.split_once(' ').ok_or_else(|| fault("no descriptor"))?;
            let (name, value) = rest.split_once(' ').ok_or_else(|| fault("a descriptor without a value"))?;
            if name != current {
                is_name(name).then_some(()).ok_or_else(|| fault("no name"))?;
                current = name.to_owned();
                if families.insert(current.clone(), Family::default()).is_some() {
                    return Err(fault("a family is not in one piece"));
                }
            }
            let family = families.get_mut(&current).expect("just put there");
            match word {
                "HELP" if !family.has_help => family.has_help = true,
                "TYPE" if family.kind.is_empty() => family.kind = value.to_owned(),
                "UNIT" if family.unit.is_none() && name.ends_with(&format!("_{value}")) => {
                    family.unit = Some(value.to_owned());
                }
                _ => return Err(fault("a descriptor that is none, or is given twice")),
            }
        } else {
            let family = families.get_mut(&current).ok_or_else(|| fault("a sample before any family"))?;
            sample(line, &current, family).map_err(|what| fault(&what))?;
            let key = line.rsplit_once(' ').map_or(line, |(key, _)| key);
            if !seen.insert(key.to_owned()) {
                return Err(fault("a sample is given twice"));
            }
        }
    }
    for (name, family) in &families {
        whole(family).map_err(|what| format!("{name}: {what}"))?;
    }
    Ok(families.into_keys().collect())
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// One sample of a family: the suffix that its type has, well-formed labels, one blank and a number.
fn sample(line: &str, name: &str, family: &mut Family) -> Result<(), String> {
    let rest = line.strip_prefix(name).ok_or("a sample of another family")?;
    let (head, value) = rest.rsplit_once(' ').ok_or("a sample without a value")?;
    let value: f64 = value.parse().map_err(|_| "the value is no number")?;
    let (suffix, labels) = match head.split_once('{') {
        Some((suffix, labels)) => (suffix, parse_labels(labels.strip_suffix('}').ok_or("labels without an end")?)?),
        None => (head, Vec::new()),
    };
    let rest: Vec<String> = labels.iter().filter(|(k, _)| k != "le").map(|(k, v)| format!("{k}={v}")).collect();
    let series = rest.join(",");
    match (family.kind.as_str(), suffix) {
        ("gauge", "") => {}
        ("counter", "_total") if value >= 0.0 => {}
        ("info", "_info") if value == 1.0 => {}
        ("histogram", "_sum") if value >= 0.0 => {}
        ("histogram", "_count") => drop(family.counts.insert(series, value)),
        ("histogram", "_bucket") => {
            let le = labels.iter().find(|(key, _)| key == "le").ok_or("a bucket without le")?;
            let bound = if le.1 == "+Inf" { f64::INFINITY } else { le.1.parse().map_err(|_| "le is no number")? };
            family.buckets.entry(series).or_default().push((bound, value));
        }
        (kind, suffix) => return Err(format!("a {kind} has no sample {suffix:?} of value {value}")),
    }
    Ok(())
}

fn parse_labels(mut text: &str) -> Result<Vec<(String, String)>, String> {
    let mut labels: Vec<(String, String)> = Vec::new();
    loop {
        let (key, rest) = text.split_once("=\"").ok_or("a label without a value")?;
        let end = rest.find('"').ok_or("a label's value without an end")?;
        let value = &rest[..end];
        if !is_name(key) || labels.iter().any(|(other, _)| other == key) || value.contains(['\\', '\n']) {
            return Err(format!("the label {key}={value:?}"));
        }
        labels.push((key.to_owned(), value.to_owned()));
        match rest[end + 1..].strip_prefix(',') {
            Some(more) => text = more,
            None if rest.len() == end + 1 => return Ok(labels),
            None => return Err("something behind a label".into()),
        }
    }
}

/// What only shows once all lines of a family are read.
fn whole(family: &Family) -> Result<(), String> {
    if !family.has_help || family.kind.is_empty() {
        return Err("it lacks HELP or TYPE".into());
    }
    for (series, buckets) in &family.buckets {
        if !buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1) {
            return Err(format!("{{{series}}}: the buckets do not rise"));
        }
        let last = buckets.last().filter(|(bound, _)| bound.is_infinite()).map(|(_, count)| count);
        if last.is_none() || last != family.counts.get(series) {
            return Err(format!("{{{series}}}: the last bucket is not +Inf with the count"));
        }
    }
    if family.counts.len() != family.buckets.len() {
        return Err("a count without buckets".into());
    }
    Ok(())
}
