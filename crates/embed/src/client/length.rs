//! Recognises the response of an embedding endpoint to an input that exceeds the model's context.
//!
//! No standard exists. The phrases below are quoted from the servers:
//!
//! | server | status | response |
//! |---|---|---|
//! | OpenAI, Azure | 400 | `This model's maximum context length is 8192 tokens, however you requested …`; `maximum input length is 8192 tokens`; code `context_length_exceeded`; `max 300000 tokens per request` |
//! | vLLM, SGLang | 400 | `This model's maximum context length is 512 tokens`; `is longer than the model's context length` |
//! | text-embeddings-inference | 413 | `` `inputs` must have less than 512 tokens ``, or `characters` |
//! | Ollama | 400, 500 before 0.13 | `the input length exceeds the context length` |
//! | llama.cpp | 400, 500 | `input is too large to process`; `exceeds the available context size` |
//! | Mistral, Bedrock, Voyage | 400 | `Too many tokens`; `Input is too long`; `exceeds the maximum number of tokens` |
//! | proxies | 413 | anything |

use reqwest::StatusCode;

/// Unambiguous error codes.
const CODES: &[&str] =
    &["context_length_exceeded", "string_above_max_length", "max_tokens_per_request", "exceed_context_size_error"];

/// Unambiguous phrases.
const PHRASES: &[&str] = &[
    "maximum context length",
    "maximum input length",
    "context_length_exceeded",
    "too large to process",
    "input is too long",
    "inputs are too long",
    "text is too long",
    "too many tokens",
    "too many input tokens",
    "tokens per request",
    "maximum number of tokens",
    "longer than the model's context",
    "available context size",
    "maximum sequence length",
];

/// Whether the endpoint rejected an input, or a list of inputs, because of its length.
pub(super) fn is_too_long(status: StatusCode, code: Option<&str>, message: &str) -> bool {
    match status.as_u16() {
        // A 413 may also mean too many texts.
        413 => is_explicit(message) || !(message.contains("batch size") || message.contains("texts in one request")),
        // 500: llama.cpp, and Ollama before 0.13.
        400 | 422 | 500 => code.is_some_and(|code| CODES.contains(&code)) || is_explicit(message),
        _ => false,
    }
}

/// Whether a message explicitly reports an overlong input, not just something too large.
pub(super) fn is_explicit(message: &str) -> bool {
    let message = message.to_lowercase();
    let has = |part: &str| message.contains(part);
    PHRASES.iter().any(|phrase| has(phrase))
        || (has("must have less than") && (has("tokens") || has("characters")))
        || (has("exceed") && (has("context length") || has("context window") || has("token limit")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, code: Option<&str>, message: &str) -> bool {
        is_too_long(StatusCode::from_u16(status).unwrap(), code, message)
    }

    #[test]
    fn length_errors_of_known_servers_are_recognised() {
        for (status, code, message) in [
            (
                400,
                None,
                "This model's maximum context length is 8192 tokens, however you requested 10021 tokens (10021 in your prompt; 0 for the completion). Please reduce your prompt; or completion length.",
            ),
            (400, None, "Invalid 'input[0]': maximum input length is 8192 tokens."),
            (400, Some("context_length_exceeded"), "Please reduce the length."),
            (400, None, "Requested 312000 tokens, max 300000 tokens per request"),
            (
                400,
                None,
                "This model's maximum context length is 512 tokens. However, you requested 600 tokens in the input for embedding generation. Please reduce the length of the input.",
            ),
            (413, None, "Input validation error: `inputs` must have less than 512 tokens. Given: 534"),
            (422, None, "Input validation error: `inputs` must have less than 32000 characters. Given: 67337"),
            (400, None, "the input length exceeds the context length"),
            (500, None, "input length exceeds maximum context length"),
            (500, None, "input is too large to process. increase the physical batch size"),
            (
                400,
                Some("exceed_context_size_error"),
                "the request exceeds the available context size, try increasing it",
            ),
            (413, None, "<html>413 Request Entity Too Large</html>"),
        ] {
            assert!(verdict(status, code, message), "{status} {message}");
        }
    }

    #[test]
    fn other_errors_are_not_length_errors() {
        for (status, code, message) in [
            (400, None, "API key not valid. Please pass a valid API key."),
            (400, Some("invalid_request_error"), "'input' must not be empty"),
            (413, None, "batch size 33 > maximum allowed batch size 32"),
            (413, None, "1025 texts in one request, which is more than 1024; split the list"),
            (413, None, "1025 texts in one request, limit 1024; split the list"),
            (422, None, "batch size 33 > maximum allowed batch size 32"),
            (429, Some("rate_limit_exceeded"), "Rate limit reached: too many tokens per min"),
            (500, None, "unsupported value: NaN"),
            (503, None, "maximum context length unknown while loading"),
        ] {
            assert!(!verdict(status, code, message), "{status} {message}");
        }
    }
}
