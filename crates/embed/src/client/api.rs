//! Request and response formats of remote embedding APIs. Pure: maps settings to requests, and responses to vectors.
//!
//! - OpenAI: "Create embeddings" in its API reference. Many servers implement it.
//! - text-embeddings-inference: its OpenAPI description; `/embed` instead of its OpenAI-compatible endpoint, because only
//!   there a request decides whether an overlong text is truncated, regardless of `--auto-truncate`.
//! - Ollama: `docs/api.md` in its repository; `/api/embed` for the same reason.
//!
//! A passage is never truncated: truncated text would silently be missing from the index. The server rejects it, and the
//! document is split again. A query is truncated, because the beginning of a long query is better than no result.

use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::Purpose;

use super::http::shown;

/// Special tokens that a model adds to a text; the chunker does not count them.
const SPECIALS: usize = 2;

/// The API of a remote embedder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's `/v1/embeddings`.
    OpenAi,
    /// Hugging Face's text-embeddings-inference.
    TextEmbeddingsInference,
    /// Ollama.
    Ollama,
}

/// The self-description of an embedder. Unreported fields are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerInfo {
    pub(super) model: Option<String>,
    /// The model's revision.
    pub(super) revision: Option<String>,
    /// Maximum tokens of a text, without special tokens.
    pub(super) max_tokens: Option<usize>,
    /// Maximum texts per request.
    pub(super) batch: Option<usize>,
}

impl Api {
    /// Returns the API of a provider, by its name in the settings.
    pub fn named(provider: &str) -> Option<Self> {
        match provider {
            "openai" => Some(Self::OpenAi),
            "tei" => Some(Self::TextEmbeddingsInference),
            "ollama" => Some(Self::Ollama),
            _ => None,
        }
    }

    /// Returns the embedding endpoint for a configured URL, which may be the server's address or one of its endpoints.
    pub(super) fn endpoint(self, mut url: Url) -> Url {
        let path = url.path().trim_end_matches('/');
        let path = match self {
            Self::OpenAi if path.is_empty() => "/v1/embeddings".to_owned(),
            Self::OpenAi if path.ends_with("/embeddings") => path.to_owned(),
            Self::OpenAi => format!("{path}/embeddings"),
            Self::TextEmbeddingsInference => format!("{}/embed", without(path, &["/v1/embeddings", "/embed"])),
            Self::Ollama => format!("{}/api/embed", without(path, &["/v1/embeddings", "/api/embed", "/v1", "/api"])),
        };
        url.set_path(&path);
        url
    }

    /// Returns the URL of the self-description and the body to post (`None`: GET). `None` if the API has none.
    pub(super) fn description(self, endpoint: &Url, model: &str) -> Option<(Url, Option<Value>)> {
        let beside = |from: &str, to: &str| {
            let mut url = endpoint.clone();
            let path = format!("{}{to}", without(endpoint.path(), &[from]));
            url.set_path(&path);
            url
        };
        match self {
            Self::OpenAi => None,
            Self::TextEmbeddingsInference => Some((beside("/embed", "/info"), None)),
            Self::Ollama => Some((beside("/api/embed", "/api/show"), Some(json!({ "model": model })))),
        }
    }

    /// Parses the self-description.
    pub(super) fn read_description(self, body: &[u8], url: &Url) -> Result<ServerInfo, PortError> {
        let wrong = |cause: &str| {
            PortError::fatal(format!("the server at {} {cause}", shown(url)))
                .with_hint("check embedding.provider and embedding.url")
        };
        match self {
            Self::OpenAi => Ok(ServerInfo::default()),
            Self::TextEmbeddingsInference => {
                let info: TeiInfo =
                    serde_json::from_slice(body).map_err(|_| wrong("is not text-embeddings-inference"))?;
                // "embedding", "classifier" or "reranker" with details; older versions send a plain string.
                let kind = match &info.model_type {
                    Some(Value::Object(kinds)) => kinds.keys().next().map(String::as_str),
                    Some(Value::String(kind)) => Some(kind.as_str()),
                    _ => None,
                };
                if let Some(other) = kind.filter(|kind| !kind.eq_ignore_ascii_case("embedding")) {
                    return Err(wrong(&format!(
                        "serves {}, which is a {other}, not an embedding model",
                        info.model_id
                    )));
                }
                Ok(ServerInfo {
                    model: Some(info.model_id),
                    revision: info.model_sha,
                    max_tokens: info.max_input_length.map(|length| length.saturating_sub(SPECIALS).max(1)),
                    batch: info.max_client_batch_size,
                })
            }
            Self::Ollama => {
                let show: OllamaShow = serde_json::from_slice(body).map_err(|_| wrong("is not Ollama"))?;
                // The key begins with the architecture: "bert.context_length".
                let length = show.model_info.iter().find(|(key, _)| key.ends_with(".context_length"));
                let length = length.and_then(|(_, value)| value.as_u64()).and_then(|length| length.try_into().ok());
                Ok(ServerInfo {
                    max_tokens: length.map(|length: usize| length.saturating_sub(SPECIALS).max(1)),
                    ..ServerInfo::default()
                })
            }
        }
    }

    /// Returns the request body for these texts.
    pub(super) fn body(self, model: &str, input: &[&str], purpose: Purpose, dimensions: Option<usize>) -> Value {
        let truncate = purpose == Purpose::Query;
        let mut body = match self {
            Self::OpenAi => json!({ "model": model, "input": input }),
            Self::TextEmbeddingsInference => json!({ "inputs": input, "truncate": truncate }),
            Self::Ollama => json!({ "model": model, "input": input, "truncate": truncate }),
        };
        if let Some(dimensions) = dimensions {
            body["dimensions"] = dimensions.into();
        }
        body
    }

    /// Parses the vectors of a response to `count` texts, in the order of the texts. A null becomes NaN.
    pub(super) fn vectors(self, body: &[u8], count: usize) -> Result<Vec<Vec<f32>>, Unreadable> {
        let vectors = match self {
            Self::OpenAi => {
                let reply: OpenAiReply = serde_json::from_slice(body).map_err(|cause| parse_error(body, &cause))?;
                if reply.data.len() != count {
                    return Err(Unreadable::Count(reply.data.len()));
                }
                return in_order(reply.data, count).map_err(Unreadable::Answer);
            }
            Self::TextEmbeddingsInference => serde_json::from_slice(body),
            Self::Ollama => serde_json::from_slice(body).map(|reply: OllamaReply| reply.embeddings),
        };
        let vectors: Vec<Numbers> = vectors.map_err(|cause| parse_error(body, &cause))?;
        if vectors.len() != count {
            return Err(Unreadable::Count(vectors.len()));
        }
        Ok(vectors.into_iter().map(finite_or_nan).collect())
    }
}

/// An invalid response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// A value is not finite: caused by a text, not by the server.
    NotFinite,
    /// The number of vectors differs from the number of texts.
    Count(usize),
    /// The body is malformed.
    Answer(String),
}

/// Some servers encode a non-finite number as null.
type Numbers = Vec<Option<f32>>;

#[derive(Deserialize)]
struct OpenAiReply {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: Option<usize>,
    embedding: Numbers,
}

#[derive(Deserialize)]
struct OllamaReply {
    embeddings: Vec<Numbers>,
}

#[derive(Deserialize)]
struct TeiInfo {
    model_id: String,
    model_sha: Option<String>,
    model_type: Option<Value>,
    max_input_length: Option<usize>,
    max_client_batch_size: Option<usize>,
}

#[derive(Deserialize)]
struct OllamaShow {
    #[serde(default)]
    model_info: serde_json::Map<String, Value>,
}

fn finite_or_nan(numbers: Numbers) -> Vec<f32> {
    numbers.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect()
}

/// Strips a known endpoint suffix from the path.
fn without<'a>(path: &'a str, endings: &[&str]) -> &'a str {
    let path = path.trim_end_matches('/');
    endings.iter().find_map(|ending| path.strip_suffix(ending)).unwrap_or(path)
}

/// Sorts the vectors by their index.
fn in_order(items: Vec<Item>, count: usize) -> Result<Vec<Vec<f32>>, String> {
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
    for (place, item) in items.into_iter().enumerate() {
        let index = item.index.unwrap_or(place);
        let slot = vectors.get_mut(index).filter(|slot| slot.is_none());
        let slot = slot.ok_or_else(|| format!("duplicate or invalid index {index} for {count} texts"))?;
        *slot = Some(finite_or_nan(item.embedding));
    }
    vectors.into_iter().collect::<Option<_>>().ok_or_else(|| "missing index".to_owned())
}

/// Servers written in Python may return the literal NaN, which is not valid JSON.
fn parse_error(body: &[u8], cause: &serde_json::Error) -> Unreadable {
    let has = |word: &[u8]| body.windows(word.len()).any(|window| window == word);
    // A number beyond the range of f32 counts as not finite.
    let too_large = cause.to_string().starts_with("number out of range");
    let vectors = has(b"\"embedding") || body.trim_ascii_start().starts_with(b"[[");
    match vectors && (has(b"NaN") || has(b"Infinity") || too_large) {
        true => Unreadable::NotFinite,
        false => Unreadable::Answer(cause.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Api; 3] = [Api::OpenAi, Api::TextEmbeddingsInference, Api::Ollama];

    #[test]
    fn endpoint_is_derived_from_configured_url() {
        use Api::{Ollama, OpenAi, TextEmbeddingsInference as Tei};
        for (api, given, expected) in [
            (OpenAi, "https://api.openai.com", "https://api.openai.com/v1/embeddings"),
            (OpenAi, "https://api.openai.com/v1", "https://api.openai.com/v1/embeddings"),
            (OpenAi, "https://api.openai.com/v1/", "https://api.openai.com/v1/embeddings"),
            (OpenAi, "http://127.0.0.1:11434/v1/embeddings", "http://127.0.0.1:11434/v1/embeddings"),
            (
                OpenAi,
                "https://host/openai/deployments/x?api-version=1",
                "https://host/openai/deployments/x/embeddings?api-version=1",
            ),
            (Tei, "http://host:3000", "http://host:3000/embed"),
            (Tei, "http://host:3000/embed/", "http://host:3000/embed"),
            (Tei, "http://host:3000/v1/embeddings", "http://host:3000/embed"),
            (Tei, "https://host/tei", "https://host/tei/embed"),
            (Ollama, "http://127.0.0.1:11434", "http://127.0.0.1:11434/api/embed"),
            (Ollama, "http://127.0.0.1:11434/v1", "http://127.0.0.1:11434/api/embed"),
            (Ollama, "http://127.0.0.1:11434/api/embed", "http://127.0.0.1:11434/api/embed"),
        ] {
            assert_eq!(api.endpoint(Url::parse(given).unwrap()).as_str(), expected, "{given}");
        }
    }

    #[test]
    fn description_url_is_derived_from_endpoint() {
        let described = |api: Api, url: &str| {
            let endpoint = api.endpoint(Url::parse(url).unwrap());
            api.description(&endpoint, "m").map(|(url, body)| (url.to_string(), body))
        };
        assert_eq!(described(Api::OpenAi, "http://host"), None);
        let tei = described(Api::TextEmbeddingsInference, "https://host/tei");
        assert_eq!(tei, Some(("https://host/tei/info".to_owned(), None)));
        let ollama = described(Api::Ollama, "http://host/v1");
        assert_eq!(ollama, Some(("http://host/api/show".to_owned(), Some(json!({"model": "m"})))));
    }

    #[test]
    fn self_description_is_parsed() {
        let url = Url::parse("http://host/info").unwrap();
        let read = |api: Api, body: Value| api.read_description(body.to_string().as_bytes(), &url);
        let tei = Api::TextEmbeddingsInference;
        let info = json!({
            "model_id": "BAAI/bge-small-en-v1.5", "model_sha": "5c38", "model_dtype": "float32",
            "model_type": {"embedding": {"pooling": "cls"}}, "max_concurrent_requests": 512, "max_input_length": 512,
            "max_batch_tokens": 16384, "max_client_batch_size": 32, "auto_truncate": false, "version": "1.8.2",
        });
        let reported = ServerInfo {
            model: Some("BAAI/bge-small-en-v1.5".to_owned()),
            revision: Some("5c38".to_owned()),
            max_tokens: Some(510),
            batch: Some(32),
        };
        assert_eq!(read(tei, info), Ok(reported));
        let reranker = json!({"model_id": "BAAI/bge-reranker-base", "model_type": {"reranker": {"id2label": {}}}});
        let error = read(tei, reranker).unwrap_err();
        assert!(error.message.contains("BAAI/bge-reranker-base, which is a reranker"), "{}", error.message);
        assert!(read(tei, json!({"error": "x"})).unwrap_err().message.contains("is not text-embeddings-inference"));

        let show = json!({
            "details": {"family": "bert"}, "capabilities": ["embedding"],
            "model_info": {"general.architecture": "bert", "bert.context_length": 512, "bert.embedding_length": 384},
        });
        assert_eq!(read(Api::Ollama, show), Ok(ServerInfo { max_tokens: Some(510), ..ServerInfo::default() }));
        // Older versions report less.
        assert_eq!(read(Api::Ollama, json!({"details": {}})), Ok(ServerInfo::default()));
    }

    #[test]
    fn request_bodies_are_built_per_api() {
        let asked = |purpose| ALL.map(|api| api.body("m", &["a", "b"], purpose, None));
        for (purpose, truncate) in [(Purpose::Passage, false), (Purpose::Query, true)] {
            let asked = asked(purpose);
            assert_eq!(asked[0], json!({"model": "m", "input": ["a", "b"]}));
            assert_eq!(asked[1], json!({"inputs": ["a", "b"], "truncate": truncate}));
            assert_eq!(asked[2], json!({"model": "m", "input": ["a", "b"], "truncate": truncate}));
        }
        assert_eq!(Api::Ollama.body("m", &[], Purpose::Passage, Some(8))["dimensions"], 8);
    }

    #[test]
    fn responses_are_parsed_per_api() {
        let answers = [
            r#"{"data": [{"index": 1, "embedding": [2, 3]}, {"index": 0, "embedding": [0, 1]}]}"#,
            "[[0, 1], [2, 3]]",
            r#"{"model": "m", "embeddings": [[0, 1], [2, 3]], "total_duration": 14143917}"#,
        ];
        for (api, answer) in ALL.into_iter().zip(answers) {
            let vectors = api.vectors(answer.as_bytes(), 2).unwrap();
            assert_eq!(vectors, [[0.0, 1.0], [2.0, 3.0]], "{api:?}");
            assert_eq!(api.vectors(answer.as_bytes(), 3), Err(Unreadable::Count(2)), "{api:?}");
            assert!(matches!(api.vectors(b"garbage", 2), Err(Unreadable::Answer(_))), "{api:?}");
            for bad in ["NaN", "-Infinity", "1e39"] {
                let answer = answer.replace("[0, 1]", &format!("[{bad}, 1]"));
                assert_eq!(api.vectors(answer.as_bytes(), 2), Err(Unreadable::NotFinite), "{api:?} {bad}");
            }
            let null = api.vectors(answer.replace("[0, 1]", "[null, 1]").as_bytes(), 2).unwrap();
            assert!(null[0][0].is_nan(), "{api:?}");
        }
    }

    #[test]
    fn vectors_are_sorted_by_index() {
        let item = |index, value| Item { index, embedding: vec![Some(value)] };
        let ordered = in_order(vec![item(Some(1), 1.0), item(Some(0), 0.0)], 2).unwrap();
        assert_eq!(ordered, [[0.0], [1.0]]);
        assert_eq!(in_order(vec![item(None, 0.0), item(None, 1.0)], 2).unwrap(), [[0.0], [1.0]]);
        assert!(in_order(vec![item(Some(0), 0.0), item(Some(0), 1.0)], 2).is_err());
        assert!(in_order(vec![item(Some(2), 0.0)], 1).is_err());
        assert!(in_order(vec![item(None, 0.0)], 2).is_err());
    }
}
