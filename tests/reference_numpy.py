"""PaliGemma once more, in float64 NumPy: one example at a time, layer by layer, slow and plain.

Shares no code with the library and reads sizes off the parameters, so that agreement means
something. `params` is a flat dict of arrays under the checkpoints' names.
"""

import numpy as np


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x, params, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params[f"{name}/scale"] + params[f"{name}/bias"]


def rms_norm(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * (1 + scale)


def rope(x, position):
    """[N, heads, H]: entries j and j + H/2 turn together by position / 10000**(2j / H)."""
    half = x.shape[-1] // 2
    out = np.empty_like(x)
    for j in range(half):
        angle = (position / 10000 ** (2 * j / x.shape[-1]))[:, None]
        a, b = x[..., j], x[..., j + half]
        out[..., j] = a * np.cos(angle) - b * np.sin(angle)
        out[..., j + half] = b * np.cos(angle) + a * np.sin(angle)
    return out


def vision(params, image):
    """[S, S, 3] -> [P, D]."""
    kernel = params["img/embedding/kernel"]
    p = kernel.shape[0]
    patches = [
        np.tensordot(image[y : y + p, x : x + p], kernel, 3)
        for y in range(0, image.shape[0], p)
        for x in range(0, image.shape[1], p)
    ]
    x = np.stack(patches) + params["img/embedding/bias"] + params["img/pos_embedding"][0]
    prefix = "img/Transformer/encoderblock/"
    for i in range(params[f"{prefix}LayerNorm_0/scale"].shape[0]):
        block = {k[len(prefix) :]: v[i] for k, v in params.items() if k.startswith(prefix)}
        attn, mlp = "MultiHeadDotProductAttention_0", "MlpBlock_0"
        y = layer_norm(x, block, "LayerNorm_0")
        q, k, v = (
            np.einsum("nd,dhk->hnk", y, block[f"{attn}/{which}/kernel"])
            + block[f"{attn}/{which}/bias"][:, None]
            for which in ("query", "key", "value")
        )
        y = softmax(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])) @ v
        x = x + np.einsum("hnk,hkd->nd", y, block[f"{attn}/out/kernel"]) + block[f"{attn}/out/bias"]
        y = layer_norm(x, block, "LayerNorm_1")
        y = gelu(y @ block[f"{mlp}/Dense_0/kernel"] + block[f"{mlp}/Dense_0/bias"])
        x = x + y @ block[f"{mlp}/Dense_1/kernel"] + block[f"{mlp}/Dense_1/bias"]
    x = layer_norm(x, params, "img/Transformer/encoder_norm")
    return x @ params["img/head/kernel"] + params["img/head/bias"]


def sees(segment, position, i, j):
    if segment[j] == -1:
        return False
    return segment[j] == 0 or (segment[j] == segment[i] and position[j] <= position[i])


def language(params, x, position, mask, softcap, query_scale):
    """[N, D] -> [N, D] after the final norm."""
    prefix = "llm/layers/"
    for i in range(params[f"{prefix}mlp/linear"].shape[0]):
        block = {k[len(prefix) :]: v[i] for k, v in params.items() if k.startswith(prefix)}
        y = rms_norm(x, block["pre_attention_norm/scale"])
        q = np.einsum("nd,hdk->nhk", y, block["attn/q_einsum/w"])
        k, v = np.einsum("nd,chdk->cnhk", y, block["attn/kv_einsum/w"])
        q, k = rope(q, position) * (query_scale or q.shape[-1] ** -0.5), rope(k, position)
        out = 0
        for head in range(q.shape[1]):
            shared = head // (q.shape[1] // k.shape[1])
            scores = q[:, head] @ k[:, shared].T
            if softcap:
                scores = softcap * np.tanh(scores / softcap)
            weights = softmax(np.where(mask, scores, -np.inf))
            out = out + weights @ v[:, shared] @ block["attn/attn_vec_einsum/w"][head]
        if "post_attention_norm/scale" in block:
            out = rms_norm(out, block["post_attention_norm/scale"])
        x = x + out
        y = rms_norm(x, block["pre_ffw_norm/scale"])
        gate, up = block["mlp/gating_einsum"]
        out = gelu(y @ gate) * (y @ up) @ block["mlp/linear"]
        if "post_ffw_norm/scale" in block:
            out = rms_norm(out, block["post_ffw_norm/scale"])
        x = x + out
    return rms_norm(x, params["llm/final_norm/scale"])


def logits(params, image, text, segment, position, softcap=None, query_scale=None):
    """float64[B, T, V] for a batch of the contract."""
    params = {name: np.asarray(value, np.float64) for name, value in params.items()}
    table = params["llm/embedder/input_embedding"]
    out = []
    for b in range(len(text)):
        image_tokens = vision(params, np.asarray(image[b], np.float64))
        p = len(image_tokens)
        x = np.concatenate([image_tokens, table[text[b]] * np.sqrt(table.shape[1])])
        everywhere = np.concatenate([np.arange(p), p + np.asarray(position[b])])
        seg, pos = np.r_[np.zeros(p, int), segment[b]], everywhere
        mask = np.array([[sees(seg, pos, i, j) for j in range(len(x))] for i in range(len(x))])
        out.append(language(params, x, everywhere, mask, softcap, query_scale)[p:] @ table.T)
    return np.stack(out)


def log_likelihood(scores, text, segment, position):
    """float64[B, T]: log-probability of each suffix token given what it is predicted from.

    That is the token of its own suffix or of the prefix whose position is one less.
    """
    out = np.zeros(text.shape)
    for b, t in zip(*np.nonzero(segment > 0), strict=True):
        before = [
            s
            for s in range(text.shape[1])
            if segment[b, s] in (0, segment[b, t]) and position[b, s] == position[b, t] - 1
        ]
        row = scores[b, before[0]]
        out[b, t] = row[text[b, t]] - row.max() - np.log(np.exp(row - row.max()).sum())
    return out
