"""Reference vectors of sentence-transformers for the models of tests/model_settings.rs.

    MODEL_SETTINGS_OUT=/tmp/settings cargo test --workspace --test model_settings -- --ignored write_models
    python settings.py /tmp/settings > settings_vectors.json       # sentence-transformers 6.2, transformers 5.24, torch 2.15
"""
import json, os, sys
import torch
from sentence_transformers import SentenceTransformer

root = sys.argv[1]
texts = json.load(open(f"{root}/texts.json"))
answers = {}
for name in sorted(os.listdir(root)):
    if not os.path.isdir(f"{root}/{name}"):
        continue
    model = SentenceTransformer(f"{root}/{name}", device="cpu", model_kwargs={"dtype": torch.float32})
    # encode_document() prefers an empty 'document' over 'passage'; a model that has only 'passage' was trained with it.
    document = next((model.prompts[key] for key in ("document", "passage", "corpus") if model.prompts.get(key)), None)
    # One by one: padding changes the last digits.
    embed = lambda encode, **options: [[round(float(value), 6) for value in encode([text], **options)[0]] for text in texts]
    answers[name] = {"documents": embed(model.encode_document, prompt=document), "queries": embed(model.encode_query)}
lines = (f" {json.dumps(name)}: {json.dumps(answer)}" for name, answer in answers.items())
print("{\n" + ",\n".join(lines) + "\n}")
