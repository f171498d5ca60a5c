//! The pattern language of `-e`: `*` any run of characters, `?` one, `[a-z]` a set; anything else
//! is itself. The same function decides in the tool (to suggest names) and in the agent (to
//! enable), so that the two cannot disagree.

/// Does `pattern` match the whole of `name`?
///
/// Runs in time proportional to `pattern.len() * name.len()` at worst; a hostile pattern cannot
/// make it exponential.
///
/// ```
/// use gracepoint_wire::glob::matches;
/// assert!(matches("kv:*", "kv:get"));
/// assert!(matches("kv:[gp]?t", "kv:put"));
/// assert!(!matches("kv", "kv:get"));
/// ```
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = differing(pattern, name);
    match pattern.bytes().next() {
        None => name.is_empty(),
        Some(b'*') if pattern.len() == 1 => true,
        Some(b'*' | b'?' | b'[') => matches_rest(pattern, name),
        Some(_) => false,
    }
}

/// What is left without the literal characters that both begin with. Most patterns are decided by that.
fn differing<'p, 'n>(pattern: &'p str, name: &'n str) -> (&'p str, &'n str) {
    let literal = |&(p, n): &(u8, u8)| p == n && !matches!(p, b'*' | b'?' | b'[');
    let mut same = pattern.bytes().zip(name.bytes()).take_while(literal).count();
    // They may differ in the midst of a character.
    while !(pattern.is_char_boundary(same) && name.is_char_boundary(same)) {
        same -= 1;
    }
    (&pattern[same..], &name[same..])
}

fn matches_rest(pattern: &str, name: &str) -> bool {
    let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut pi, mut ni) = (0, 0);
    // Where to resume when a literal fails: after the last `*`, one character further on.
    let mut star: Option<(usize, usize)> = None;
    while ni < n.len() {
        if pi < p.len() && p[pi] == '*' {
            star = Some((pi + 1, ni));
            pi += 1;
            continue;
        }
        let step = one(&p[pi.min(p.len())..], n[ni]);
        match (step, star) {
            (Some(width), _) => {
                pi += width;
                ni += 1;
            }
            (None, Some((after, from))) => {
                star = Some((after, from + 1));
                pi = after;
                ni = from + 1;
            }
            (None, None) => return false,
        }
    }
    p[pi..].iter().all(|&c| c == '*')
}

/// If the head of `pattern` (not `*`) accepts `c`, how many pattern characters it takes up.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => match set(pattern, c) {
            Some((width, true)) => Some(width),
            Some((_, false)) => None,
            None => (c == '[').then_some(1), // unclosed: a literal bracket
        },
        &literal => (literal == c).then_some(1),
    }
}

/// A `[…]` at the head of `pattern`: its width, and whether `c` is in it.
fn set(pattern: &[char], c: char) -> Option<(usize, bool)> {
    let end = 1 + pattern[1..].iter().skip(1).position(|&x| x == ']')? + 1;
    let mut body = &pattern[1..end];
    let negated = matches!(body.first(), Some('!' | '^'));
    if negated {
        body = &body[1..];
    }
    let mut found = false;
    while let [first, rest @ ..] = body {
        if let ['-', last, rest @ ..] = rest {
            found |= (*first..=*last).contains(&c);
            body = rest;
        } else {
            found |= *first == c;
            body = rest;
        }
    }
    Some((end + 1, found != negated))
}

/// Names near `wanted`, nearest first, at most `most`: for "did you mean". Case does not count;
/// where no name is near, those of the same provider are.
pub fn near<'a>(
    wanted: &str,
    names: impl IntoIterator<Item = &'a str>,
    most: usize,
) -> Vec<&'a str> {
    let plain: String = wanted.chars().filter(|c| !matches!(c, '*' | '?' | '[' | ']')).collect();
    let plain = plain.to_lowercase();
    let provider = plain.split_once(':').map(|(provider, _)| provider);
    let scored = names.into_iter().map(|name| {
        let lower = name.to_lowercase();
        let contains = !plain.is_empty() && lower.contains(plain.trim_matches(':'));
        (if contains { 0 } else { distance(&plain, &lower) }, name)
    });
    let (mut close, mut far): (Vec<(usize, &str)>, Vec<_>) =
        scored.partition(|&(d, name)| d <= 2 + name.chars().count() / 3);
    if close.is_empty() {
        let named = provider.filter(|provider| !provider.is_empty());
        far.retain(|(_, name)| named.is_some_and(|p| name.split(':').next() == Some(p)));
        close = far;
    }
    close.sort();
    close.into_iter().take(most).map(|(_, name)| name).collect()
}

/// Edit distance (insert, delete, replace).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, want) in [
            ("*", "", true),
            ("*", "a:b", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXbYY", false),
            ("?", "ä", true),
            ("[!a]", "b", true),
            ("[!a]", "a", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[", "[", true),
            ("[]]", "]", true),
            ("a[", "a[", true),
            ("kv:*", "kv:get:begin", true),
            ("kv:*", "kv", false),
            ("kv", "kv:get", false),
            ("kv:get", "kv", false),
            ("kv:get", "kv:get", true),
            ("kä", "kö", false),
            ("kä*", "kä:get", true),
            ("k?", "kä", true),
            ("a[b", "a[b", true),
            ("ab]", "ab]", true),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} ~ {name}");
            assert_eq!(matches_rest(pattern, name), want, "{pattern} ~ {name}, all of it");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = "*a".repeat(500);
        let name = "a".repeat(499) + "b";
        assert!(!matches(&pattern, &name));
    }

    #[test]
    fn suggestions_come_nearest_first() {
        let names = ["kv:get", "kv:put", "http:request"];
        assert_eq!(near("kv:gte", names, 2), ["kv:get", "kv:put"]);
        assert_eq!(near("request", names, 2)[0], "http:request");
        assert_eq!(near("KV:Get", names, 1), ["kv:get"]);
        assert_eq!(near("kv:zzzzzzzzzzzzzzzz*", names, 3), ["kv:get", "kv:put"]);
        assert!(near("zzzzzzzzzzzzzzzz", names, 3).is_empty());
        assert!(near(":zzzzzzzzzzzzzzzz", names, 3).is_empty());
    }
}
