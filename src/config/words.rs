//! What is wrong in the configuration, in words for the person who wrote it: serde and toml write theirs for programmers.

/// The same message in plain words; any other stays as it is.
pub(super) fn plain(message: &str) -> String {
    if let Some((name, known)) = unknown(message, "unknown field ") {
        return format!("there is no {name} here; what there is: {known}");
    }
    if let Some((value, known)) = unknown(message, "unknown variant ") {
        return format!("{value} is not possible; what is: {known}");
    }
    let types = ["invalid type: ", "invalid value: "].iter().find_map(|start| message.strip_prefix(start));
    match types.and_then(|rest| rest.split_once(", expected ")) {
        Some((found, expected)) => format!("{} is expected here, not {}", wanted(expected), given(found)),
        None => message.to_owned(),
    }
}

/// The name and the possible ones in `unknown field `x`, expected one of `a`, `b`` (serde's `unknown_field`).
fn unknown<'m>(message: &'m str, start: &str) -> Option<(&'m str, String)> {
    let rest = message.strip_prefix(start)?;
    let (name, known) = rest.split_once(", ").unwrap_or((rest, ""));
    let known = known.strip_prefix("expected ").unwrap_or(known);
    let known = known.strip_prefix("one of ").unwrap_or(known).replace('`', "");
    Some((name, known))
}

/// What serde's `Expected` of the types in this configuration says.
fn wanted(expected: &str) -> String {
    match expected {
        "a sequence" => r#"a list such as ["a", "b"]"#.into(),
        "a string" | "path string" => "a text in quotes".into(),
        "a boolean" => "true or false".into(),
        "a map" => "a section with keys".into(),
        other if other.starts_with("struct ") => "a section with keys".into(),
        other => other.to_owned(),
    }
}

/// What serde's `Unexpected` says.
fn given(found: &str) -> String {
    let value = |kind: &str| found.strip_prefix(kind).map(|value| value.replace('`', ""));
    match found {
        "sequence" => "a list".into(),
        "map" => "a section".into(),
        _ => value("integer ")
            .or_else(|| value("floating point "))
            .map(|number| format!("the number {number}"))
            .or_else(|| value("string ").map(|text| format!("the text {text}")))
            .or_else(|| value("boolean "))
            .unwrap_or_else(|| found.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_programmers_words_remain() {
        for (theirs, ours) in [
            (
                "unknown field `kinds`, expected one of `kind`, `label`",
                "there is no `kinds` here; what there is: kind, label",
            ),
            ("unknown field `x`, expected `mask`", "there is no `x` here; what there is: mask"),
            ("unknown variant `all`, expected `local-part`", "`all` is not possible; what is: local-part"),
            (
                "invalid type: string \"x\", expected a sequence",
                "a list such as [\"a\", \"b\"] is expected here, not the text \"x\"",
            ),
            ("invalid type: integer `5`, expected a string", "a text in quotes is expected here, not the number 5"),
            (
                "invalid type: integer `5`, expected struct MtaConfig",
                "a section with keys is expected here, not the number 5",
            ),
            ("invalid type: sequence, expected a string", "a text in quotes is expected here, not a list"),
            ("“soon” is no duration", "“soon” is no duration"),
        ] {
            assert_eq!(plain(theirs), ours);
        }
    }
}
