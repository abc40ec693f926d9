"""Request bodies. A field is obeyed or refused by name; `null` is absent; nothing is coerced.

    base.Body             an object without unknown fields
    ├── sampling.SamplingBody         what chat and completions share
    │   ├── chat.ChatBody                POST /v1/chat/completions
    │   └── completion.CompletionBody    POST /v1/completions
    ├── tokens.TokenizeBody           POST /tokenize
    └── tokens.DetokenizeBody         POST /detokenize

`conversation` has messages, `tools` the tools and who chooses among them, `output` what the answer
must look like, `refused` the names that are known and not obeyed. Limits that depend on the loaded
model (vocabulary, context) are checked in `api.sampling`; `api.validation` turns what pydantic
finds into errors of ours.
"""
