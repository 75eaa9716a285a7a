"""Third-party embedding engines behind a line-based JSON protocol: one request per line, one response per line."""

import json
import os
import sys
import tempfile
import threading
import time

import numpy

MODEL = sys.argv[2]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def sentence_transformers(batch):
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(CORES)
    model = SentenceTransformer(MODEL, device="cpu")

    def embed(texts, ids):
        return model.encode(texts, batch_size=batch, normalize_embeddings=True, show_progress_bar=False)

    def single(ids):
        text = model.tokenizer.decode(ids, skip_special_tokens=True)
        return lambda: model.encode([text], normalize_embeddings=True, show_progress_bar=False)

    return embed, single


def padded(ids, batch):
    """Batches texts of similar length, longest first; yields positions, ids and mask."""
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        length = max(len(ids[i]) for i in part)
        tokens = numpy.zeros((len(part), length), numpy.int64)
        mask = numpy.zeros((len(part), length), numpy.int64)
        for row, i in enumerate(part):
            tokens[row, : len(ids[i])] = ids[i]
            mask[row, : len(ids[i])] = 1
        yield part, tokens, mask


def by_tokens(workers, alone, batch):
    """Builds an engine from functions that map ids and mask to token vectors: `workers` run concurrently, `alone` uses
    all cores."""

    def pooled(run, tokens, mask):
        hidden = run(tokens, mask)
        weights = mask[:, :, None].astype(numpy.float32)
        mean = (hidden * weights).sum(1) / weights.sum(1)
        return mean / numpy.linalg.norm(mean, axis=1, keepdims=True)

    def embed(texts, ids):
        out = numpy.zeros((len(ids), hidden_size()), numpy.float32)
        todo, lock = padded(ids, batch), threading.Lock()

        def work(run):
            while True:
                with lock:
                    part, tokens, mask = next(todo, (None, None, None))
                if part is None:
                    return
                out[part] = pooled(run, tokens, mask)

        threads = [threading.Thread(target=work, args=(run,)) for run in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return out

    def single(ids):
        tokens = numpy.array([ids], numpy.int64)
        mask = numpy.ones_like(tokens)
        return lambda: pooled(alone, tokens, mask)

    return embed, single


def config():
    with open(os.path.join(MODEL, "config.json")) as file:
        return json.load(file)


def hidden_size():
    return config()["hidden_size"]


def tensors():
    """Reads the f32 tensors of model.safetensors."""
    with open(os.path.join(MODEL, "model.safetensors"), "rb") as file:
        data = file.read()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    out = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            out[name] = numpy.frombuffer(data[begin:end], numpy.float32).reshape(entry["shape"])
    word = "embeddings.word_embeddings.weight"
    prefix = next(name for name in out if name.endswith(word))[: -len(word)]
    return {name[len(prefix) :]: value for name, value in out.items() if name.startswith(prefix)}


def onnx_graph(fused):
    """Builds the model as an ONNX graph; fused: with onnxruntime's fused operators."""
    from onnx import TensorProto, helper, numpy_helper

    settings, weights = config(), tensors()
    hidden, heads = settings["hidden_size"], settings["num_attention_heads"]
    nodes, constants = [], {}

    def constant(name, value):
        constants[name] = numpy_helper.from_array(numpy.ascontiguousarray(value), name)
        return name

    count = [0]

    def node(kind, inputs, domain="", outputs=1, **attributes):
        count[0] += 1
        names = [f"{kind}_{count[0]}_{n}" for n in range(outputs)]
        nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names[0]

    def weight(name):
        return constant(name, weights[name])

    def linear(x, name):
        product = node("MatMul", [x, constant(name + ".weight", weights[name + ".weight"].T)])
        return node("Add", [product, weight(name + ".bias")])

    def norm(x, name):
        inputs = [x, weight(name + ".weight"), weight(name + ".bias")]
        return node("LayerNormalization", inputs, axis=-1, epsilon=settings["layer_norm_eps"])

    def skip_norm(x, residual, name):
        if fused:
            inputs = [x, residual, weight(name + ".weight"), weight(name + ".bias")]
            return node("SkipLayerNormalization", inputs, "com.microsoft", epsilon=settings["layer_norm_eps"])
        return norm(node("Add", [x, residual]), name)

    def split_heads(x, order):
        shape = constant("heads", numpy.array([0, 0, heads, hidden // heads], numpy.int64))
        return node("Transpose", [node("Reshape", [x, shape])], perm=order)

    word = node("Gather", [weight("embeddings.word_embeddings.weight"), "ids"])
    positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    length = node("Gather", [node("Shape", ["ids"]), constant("one", numpy.array([1], numpy.int64))])
    zero, first = constant("zero", numpy.array([0], numpy.int64)), constant("axis", numpy.array([0], numpy.int64))
    place = node("Slice", [constant("places", positions), zero, length, first])
    x = norm(node("Add", [word, place]), "embeddings.LayerNorm")
    if fused:
        mask = node("Cast", ["mask"], to=TensorProto.INT32)
    else:
        two = constant("axes", numpy.array([1, 2], numpy.int64))
        kept = node("Unsqueeze", [node("Cast", ["mask"], to=TensorProto.FLOAT), two])
        away = node("Sub", [constant("unit", numpy.float32(1)), kept])
        mask = node("Mul", [away, constant("far", numpy.float32(-1e9))])
    for layer in range(settings["num_hidden_layers"]):
        name = f"encoder.layer.{layer}."
        own = name + "attention.self."
        if fused:
            kinds = ("query", "key", "value")
            matrix = numpy.concatenate([weights[own + kind + ".weight"].T for kind in kinds], 1)
            bias = numpy.concatenate([weights[own + kind + ".bias"] for kind in kinds])
            inputs = [x, constant(own + "weight", matrix), constant(own + "bias", bias), mask]
            gathered = node("Attention", inputs, "com.microsoft", num_heads=heads)
        else:
            query = split_heads(linear(x, own + "query"), [0, 2, 1, 3])
            key = split_heads(linear(x, own + "key"), [0, 2, 3, 1])
            value = split_heads(linear(x, own + "value"), [0, 2, 1, 3])
            scale = constant("scale", numpy.float32((hidden // heads) ** -0.5))
            scores = node("Add", [node("Mul", [node("MatMul", [query, key]), scale]), mask])
            rows = node("Transpose", [node("MatMul", [node("Softmax", [scores], axis=-1), value])], perm=[0, 2, 1, 3])
            gathered = node("Reshape", [rows, constant("rows", numpy.array([0, 0, hidden], numpy.int64))])
        x = skip_norm(linear(gathered, name + "attention.output.dense"), x, name + "attention.output.LayerNorm")
        up = name + "intermediate.dense"
        if fused:
            product = node("MatMul", [x, constant(up + ".weight", weights[up + ".weight"].T)])
            inner = node("BiasGelu", [product, weight(up + ".bias")], "com.microsoft")
        else:
            inner = node("Gelu", [linear(x, up)])
        x = skip_norm(linear(inner, name + "output.dense"), x, name + "output.LayerNorm")
    graph = helper.make_graph(
        nodes,
        "bert",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in ("ids", "mask")],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", "length", hidden])],
        list(constants.values()),
    )
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=9)


def onnxruntime_engine(int8):
    """One single-threaded session per core: a fifth to a third faster here than one session with all threads."""
    import onnx
    import onnxruntime

    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "model.onnx")
    onnx.save(onnx_graph(True), path)
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantized = os.path.join(folder, "int8.onnx")
        # Quantization cannot infer the result types of onnxruntime's fused operators.
        extra = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(path, quantized, per_channel=True, weight_type=QuantType.QInt8, extra_options=extra)
        path = quantized

    def session(threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda tokens, mask: session.run(None, {"ids": tokens, "mask": mask})[0]

    return by_tokens([session(1) for _ in range(CORES)], session(CORES), batch=2)


def openvino_engine(precision):
    """One stream per core, as with its throughput hint; the model for single texts is compiled for latency."""
    import onnx
    import openvino

    path = os.path.join(tempfile.mkdtemp(), "model.onnx")
    onnx.save(onnx_graph(False), path)
    core = openvino.Core()
    model = core.read_model(path)
    if precision == "int8":
        model = quantized(model)

    def compiled(**settings):
        if precision != "int8":
            settings["INFERENCE_PRECISION_HINT"] = precision
        return core.compile_model(model, "CPU", settings)

    def request(compiled):
        request, output = compiled.create_infer_request(), compiled.output(0)
        return lambda tokens, mask: request.infer({"ids": tokens, "mask": mask})[output]

    streams = compiled(PERFORMANCE_HINT="THROUGHPUT", NUM_STREAMS=str(CORES), INFERENCE_NUM_THREADS=CORES)
    alone = compiled(PERFORMANCE_HINT="LATENCY")
    return by_tokens([request(streams) for _ in range(CORES)], request(alone), batch=2 if precision == "f32" else 4)


def quantized(model):
    """Post-training quantisation with OpenVINO's own tool, calibrated with 128 of the texts."""
    import nncf

    samples = [{"ids": tokens, "mask": mask} for _, tokens, mask in padded(DATA["ids"][:128], 1)]
    data = nncf.Dataset(samples)
    return nncf.quantize(model, data, subset_size=len(samples), model_type=nncf.ModelType.TRANSFORMER)


ENGINES = {
    "st-8": lambda: sentence_transformers(8),
    "st-32": lambda: sentence_transformers(32),
    "ort-f32": lambda: onnxruntime_engine(False),
    "ort-int8": lambda: onnxruntime_engine(True),
    "ov-f32": lambda: openvino_engine("f32"),
    "ov-bf16": lambda: openvino_engine("bf16"),
    "ov-int8": lambda: openvino_engine("int8"),
}


DATA = {}


def main():
    # Libraries may print: redirect stdout to stderr and reserve the real stdout for the protocol.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**fields):
        print(json.dumps(fields), file=answers, flush=True)

    DATA.update(json.loads(sys.stdin.readline()))
    try:
        embed, single = ENGINES[sys.argv[1]]()
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
        return
    answer()
    for line in sys.stdin:
        question = json.loads(line)
        if question["do"] == "embed":
            vectors = embed(DATA["texts"], DATA["ids"])
            answer(vectors=numpy.asarray(vectors, numpy.float32).ravel().tolist())
        elif question["do"] == "time":
            start, cpu = time.perf_counter(), time.process_time()
            embed(DATA["texts"], DATA["ids"])
            answer(seconds=[time.perf_counter() - start], cpu=time.process_time() - cpu)
        else:
            run, seconds = single(question["ids"]), []
            for _ in range(question["repeats"]):
                start = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - start)
            answer(seconds=seconds)


main()
