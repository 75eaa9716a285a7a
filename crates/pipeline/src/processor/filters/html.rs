//! HTML to text.

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, State, Tokenizer};

use super::lines::{Gap, Lines};

/// Returns the text of a page or a fragment, however malformed: without tags, comments, scripts and styles, with
/// character references decoded. Block elements and `<br>` are line breaks; `<pre>` keeps its own.
pub(super) fn strip_tags(html: &str) -> String {
    let mut page = Page::default();
    {
        let emitter =
            CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| -> Option<State> { page.event(&event) });
        let mut tokenizer = Tokenizer::new_with_emitter(html, emitter);
        while let Some(Ok(state)) = tokenizer.next() {
            tokenizer.set_state(state);
        }
    }
    page.lines.finish()
}

/// Returns the separation that a tag, for example `</p>`, makes.
pub(super) fn gap_of_tag(tag: &str) -> Gap {
    let name = tag.trim_start_matches(['<', '/']);
    let end = name.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(name.len());
    gap(name[..end].to_ascii_lowercase().as_bytes())
}

#[derive(Default)]
struct Page {
    lines: Lines,
    /// Number of open `<pre>`.
    preformatted: usize,
    /// Whether the text is that of a script or a style.
    hidden: bool,
    /// The start tag that is being read has content without tags.
    raw: Option<Raw>,
}

/// The content of an element that has no tags in it.
#[derive(Clone, Copy)]
struct Raw {
    state: State,
    hidden: bool,
}

impl Page {
    /// Returns the state of the tokenizer for the content of an element, where it differs.
    fn event(&mut self, event: &CallbackEvent<'_>) -> Option<State> {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                self.lines.separate(gap(name));
                self.raw = raw(name);
                self.preformatted += usize::from(*name == b"pre");
            }
            // `<script/>` of XHTML has no content, whatever HTML says: reading on would drop the rest of the text.
            CallbackEvent::CloseStartTag { self_closing: false } => {
                let raw = self.raw.take()?;
                self.hidden = raw.hidden;
                return Some(raw.state);
            }
            CallbackEvent::EndTag { name } => {
                self.hidden = false;
                self.lines.separate(gap(name));
                if *name == b"pre" {
                    self.preformatted = self.preformatted.saturating_sub(1);
                }
            }
            CallbackEvent::String { value } if !self.hidden => {
                let text = String::from_utf8_lossy(value);
                if self.preformatted > 0 {
                    self.lines.verbatim(&text);
                } else {
                    self.lines.flow(&text);
                }
            }
            _ => {}
        }
        None
    }
}

fn raw(name: &[u8]) -> Option<Raw> {
    let (state, hidden) = match name {
        b"script" => (State::ScriptData, true),
        b"style" | b"iframe" | b"noembed" | b"noframes" => (State::RawText, true),
        b"xmp" => (State::RawText, false),
        b"title" | b"textarea" => (State::RcData, false),
        _ => return None,
    };
    Some(Raw { state, hidden })
}

fn gap(name: &[u8]) -> Gap {
    match name {
        b"address" | b"article" | b"aside" | b"blockquote" | b"body" | b"br" | b"caption" | b"center" | b"dd"
        | b"details" | b"dialog" | b"dir" | b"div" | b"dl" | b"dt" | b"fieldset" | b"figcaption" | b"figure"
        | b"footer" | b"form" | b"frameset" | b"h1" | b"h2" | b"h3" | b"h4" | b"h5" | b"h6" | b"head" | b"header"
        | b"hgroup" | b"hr" | b"html" | b"legend" | b"li" | b"main" | b"menu" | b"nav" | b"ol" | b"optgroup"
        | b"option" | b"p" | b"pre" | b"search" | b"section" | b"select" | b"summary" | b"table" | b"tbody"
        | b"textarea" | b"tfoot" | b"thead" | b"title" | b"tr" | b"ul" | b"xmp" => Gap::Line,
        b"audio" | b"button" | b"canvas" | b"embed" | b"iframe" | b"img" | b"input" | b"object" | b"svg" | b"td"
        | b"th" | b"video" => Gap::Space,
        _ => Gap::None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_are_dropped_and_blocks_are_lines() {
        for (html, text) in [
            ("plain text", "plain text"),
            ("<p>One <b>t</b>wo</p><p>three</p>", "One two\nthree"),
            ("<div><div>\n a\n  b </div></div>c<br/>d", "a b\nc\nd"),
            ("<ul><li>one<li>two</ul>", "one\ntwo"),
            ("<table><tr><td>a</td><td>b</td></tr><tr><th>c<th>d</table>", "a b\nc d"),
            ("<P CLASS='a>b' title=\"<p>\">x</P >y", "x\ny"),
            ("<pre>if x:\n    y</pre>z", "if x:\n    y\nz"),
            ("<title>A &amp; B</title>body", "A & B\nbody"),
            ("a<img src=x>b", "a b"),
            ("1 < 2 & 3 > 2", "1 < 2 & 3 > 2"),
            ("cut <a href='x", "cut"),
            ("", ""),
        ] {
            assert_eq!(strip_tags(html), text, "{html}");
        }
    }

    #[test]
    fn comments_scripts_and_styles_are_dropped_with_their_content() {
        for html in [
            "a<!-- x <b> -->b",
            "a<script>if (1 < 2) { \"</b>\" }</script>b",
            "a<STYLE>p { color: red }</STYLE>b",
            "a<script src='x'/>b",
            "a<!DOCTYPE html>b",
            "a<?xml version='1.0'?>b",
            "a<![CDATA[x]]>b",
        ] {
            assert_eq!(strip_tags(html), "ab", "{html}");
        }
        assert_eq!(strip_tags("a<iframe>x</iframe>b"), "a b");
        assert_eq!(strip_tags("a<script>never closed"), "a");
        assert_eq!(strip_tags("a<noscript><p>b</noscript>"), "a\nb");
    }

    #[test]
    fn character_references_are_decoded() {
        assert_eq!(
            strip_tags("&lt;b&gt; &amp;&quot;&apos; caf&eacute;&nbsp;&euro;5 &#228;&#xE4;&hellip; &unknown; AT&T"),
            "<b> &\"' café €5 ää… &unknown; AT&T"
        );
    }

    #[test]
    fn inline_tag_of_markdown_separates_as_in_html() {
        for (tag, gap) in
            [("<br />", Gap::Line), ("</P>", Gap::Line), ("<b>", Gap::None), ("<img src='x'>", Gap::Space)]
        {
            assert_eq!(gap_of_tag(tag), gap, "{tag}");
        }
        assert_eq!(gap_of_tag("<!-- x -->"), Gap::None);
    }

    /// Pieces of HTML, well formed and not.
    fn soup() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            prop::sample::select(vec![
                "<",
                ">",
                "</",
                "/>",
                "<!--",
                "-->",
                "<p",
                "<p>",
                "</p>",
                "<script>",
                "</script",
                "<style>",
                "</style>",
                "<title>",
                "</title>",
                "<pre>",
                "</pre>",
                "<textarea>",
                "<br/>",
                "&",
                "&lt;",
                "&#",
                "&#x41;",
                "&#0;",
                "&#xFFFFFFFF;",
                "<![CDATA[",
                "]]>",
                "<!DOCTYPE",
                "='",
                "\"",
                " ",
                "\n",
                "\r",
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
        fn any_text_is_stripped_without_a_panic(html in soup()) {
            let text = strip_tags(&html);
            // A NUL in a title becomes a replacement character of three bytes.
            prop_assert!(text.len() <= 3 * html.len(), "{text:?}");
            prop_assert_eq!(text.trim_end(), &text);
        }

        #[test]
        fn words_survive_in_order_and_tags_do_not(
            parts in prop::collection::vec(
                (
                    prop::sample::select(vec!["<p>", "</p>", "<br>", "<div class=\"a > b\">", "</td>", "<li id='<b>'>", "<!-- <i> --><hr>"]),
                    "[a-z]{1,8}",
                ),
                0..30,
            ),
        ) {
            let html: String = parts.iter().flat_map(|(tag, word)| [*tag, word.as_str()]).collect();
            let text = strip_tags(&html);
            prop_assert!(!text.contains(['<', '>']), "{text:?}");
            let words: Vec<&str> = parts.iter().map(|(_, word)| word.as_str()).collect();
            prop_assert_eq!(text.split_whitespace().collect::<Vec<_>>(), words);
        }
    }
}
