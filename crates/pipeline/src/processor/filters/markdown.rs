//! Markdown to text.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use super::html;
use super::lines::{Gap, Lines};

const OPTIONS: Options = Options::ENABLE_TABLES
    .union(Options::ENABLE_FOOTNOTES)
    .union(Options::ENABLE_STRIKETHROUGH)
    .union(Options::ENABLE_TASKLISTS);

/// Bytes of the parser per node of its tree: 48, in an array that doubles as it grows.
const NODE: u64 = 96;

/// Cost of looking at one open list or quote at the start of a line, in the unit of a copied byte.
const LEVEL: u64 = 2;

/// Returns the text of Markdown (CommonMark with GitHub's tables, task lists, footnotes and strikethrough): headings,
/// emphasis, links and images keep their text, code keeps its content, list items, rows and blocks are lines.
pub(super) fn plain_text(markdown: &str) -> String {
    let mut lines = Lines::default();
    let mut code = false;
    // The HTML block that is being read: it arrives line by line, and its tags may span lines.
    let mut block = String::new();
    for event in Parser::new_ext(markdown, OPTIONS) {
        match event {
            Event::Start(tag) => {
                code |= matches!(tag, Tag::CodeBlock(_));
                lines.separate(gap(tag.to_end()));
            }
            Event::End(tag) => {
                if tag == TagEnd::HtmlBlock {
                    lines.verbatim(&html::strip_tags(&std::mem::take(&mut block)));
                }
                code &= tag != TagEnd::CodeBlock;
                lines.separate(gap(tag));
            }
            Event::Html(html) => block.push_str(&html),
            Event::InlineHtml(tag) => lines.separate(html::gap_of_tag(&tag)),
            Event::Text(text) if code => lines.verbatim(&text),
            Event::Text(text) | Event::Code(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                lines.flow(&text);
            }
            Event::SoftBreak => lines.separate(Gap::Space),
            Event::HardBreak | Event::Rule => lines.separate(Gap::Line),
            Event::FootnoteReference(_) | Event::TaskListMarker(_) => {}
        }
    }
    lines.finish()
}

fn gap(tag: TagEnd) -> Gap {
    match tag {
        TagEnd::Emphasis
        | TagEnd::Strong
        | TagEnd::Strikethrough
        | TagEnd::Superscript
        | TagEnd::Subscript
        | TagEnd::Link
        | TagEnd::Image => Gap::None,
        TagEnd::TableCell => Gap::Space,
        _ => Gap::Line,
    }
}

/// Returns an upper bound of the parser's memory in bytes, plus its work that is not linear in the text: for each line
/// it visits the lists and quotes that are open.
pub(super) fn cost(markdown: &str) -> u64 {
    let (mut nodes, mut lines, mut deepest) = (0_u64, 0_u64, 0_u64);
    for line in markdown.as_bytes().split(|byte| matches!(byte, b'\n' | b'\r')) {
        lines += 1;
        nodes += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let (indent, markers) = containers(line);
        deepest = deepest.max(deepest.min(indent / 2) + markers);
        let inline = line.iter().filter(|byte| b"*_&\\[]<!`|~".contains(byte)).count();
        // A node, and the text before it.
        nodes += 1 + 2 * (markers + inline as u64);
    }
    let visits = lines.saturating_mul(deepest);
    nodes.saturating_mul(NODE).saturating_add(visits.saturating_mul(LEVEL))
}

/// Returns the columns of white space at the start of a line, which continue lists, and the number of markers that may
/// open lists, quotes and footnotes.
fn containers(line: &[u8]) -> (u64, u64) {
    let (mut indent, mut markers) = (0, 0);
    // The label of a footnote has any text.
    let mut footnotes = false;
    for (at, byte) in line.iter().enumerate() {
        let next = line.get(at + 1);
        match byte {
            b' ' => indent += 1,
            b'\t' => indent += 4,
            b'>' => {
                indent += 2;
                markers += 1;
            }
            b'-' | b'+' | b'*' | b'.' | b')' if next.is_none_or(|next| matches!(next, b' ' | b'\t')) => markers += 1,
            b'[' if next == Some(&b'^') => footnotes = true,
            b':' if footnotes => markers += 1,
            b'0'..=b'9' => {}
            _ if footnotes => {}
            _ => break,
        }
    }
    (indent, markers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn markup_is_dropped_and_its_text_stays() {
        for (markdown, text) in [
            (
                "# Title #\n\nSome *emphasised*, **strong** and ~~old~~ text.",
                "Title\nSome emphasised, strong and old text.",
            ),
            ("Title\n=====\nfirst\nsecond  \nthird", "Title\nfirst second\nthird"),
            ("[a link](https://example.com \"t\") and ![an image](x.png)", "a link and an image"),
            ("[a reference][r] <https://example.com>\n\n[r]: https://example.org", "a reference https://example.com"),
            ("```rust\nfn main() {\n    go()\n}\n```\nand `code`", "fn main() {\n    go()\n}\nand code"),
            ("    indented *code*\n\nafter", "indented *code*\nafter"),
            ("- one\n- two\n  1. three\n\n     more\n- [x] done", "one\ntwo\nthree\nmore\ndone"),
            ("> quoted\n> text\n\n---\n\nafter", "quoted text\nafter"),
            ("| a | b |\n|---|---|\n| c | *d* |\n", "a b\nc d"),
            ("a<br>b <b>c</b> &amp; \\*d\\*", "a\nb c & *d*"),
            ("<div>\n<p>x\n<script>\ny\n</script>\n</div>\n\nz", "x\nz"),
            ("Noted[^1].\n\n[^1]: The note.", "Noted.\nThe note."),
            ("a[0] and b * c", "a[0] and b * c"),
            ("", ""),
        ] {
            assert_eq!(plain_text(markdown), text, "{markdown}");
        }
    }

    #[test]
    fn cost_of_prose_is_small_and_that_of_hostile_text_is_not() {
        let prose =
            "The parcel has *not* arrived, see [the list](https://example.com/a-list).\n- one\n\n".repeat(10_000);
        assert!(cost(&prose) < 32 * prose.len() as u64, "{}", cost(&prose));
        let markup = "*a".repeat(500_000);
        assert!(cost(&markup) > 64 * markup.len() as u64);
        // A paragraph inside thousands of lists, continued on thousands of lines.
        let nested = format!("{}a\n{}", "- ".repeat(100_000), "b\n".repeat(100_000));
        assert!(cost(&nested) > 10_000_000_000, "{}", cost(&nested));
    }

    /// Pieces of Markdown, well formed and not.
    fn soup() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                "# ",
                "*",
                "**",
                "_",
                "~~",
                "`",
                "```\n",
                "- ",
                "1. ",
                "> ",
                "\n",
                "\n\n",
                "    ",
                "[",
                "](",
                ")",
                "![",
                "]: ",
                "[^",
                "]:",
                "|",
                "|---|\n",
                "<div>\n",
                "</div>",
                "<!--",
                "-->",
                "&amp;",
                "\\",
                "<br>",
                "[x] ",
                "---\n",
                "===\n",
                "\t",
                "\r\n",
                "\0",
                "word",
                "ß",
                "\u{1f600}",
            ])
            .prop_map(str::to_owned),
            ".{0,4}",
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_markdown_becomes_text_without_a_panic(markdown in soup()) {
            let _ = cost(&markdown);
            let text = plain_text(&markdown);
            prop_assert!(text.len() <= 3 * markdown.len(), "{text:?}");
        }

        #[test]
        fn words_survive_in_order(
            parts in prop::collection::vec(
                (prop::sample::select(vec!["# ", "> ", "- ", "1. ", "**", "*"]), "[a-z]{1,8}"),
                0..30,
            ),
        ) {
            let block = |(mark, word): &(&str, String)| {
                let end = if mark.starts_with('*') { *mark } else { "" };
                format!("{mark}{word}{end}\n\n")
            };
            let markdown: String = parts.iter().map(block).collect();
            let text = plain_text(&markdown);
            let words: Vec<&str> = parts.iter().map(|(_, word)| word.as_str()).collect();
            prop_assert_eq!(text.split_whitespace().collect::<Vec<_>>(), words);
        }
    }
}
