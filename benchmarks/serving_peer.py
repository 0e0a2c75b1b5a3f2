"""A plain server around transformers' `generate`, one image at a time, for `serving_load.py`.

    PYTHON benchmarks/serving_peer.py FOLDER --port P --tokens N

PYTHON has torch and transformers. This is what a web framework's example comes to: a handler
that decodes the upload and calls `generate`, with a lock. It writes token ids, and no text.
"""

import argparse
import http.server
import io
import json
import threading

import numpy as np
import torch
import transformers
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--prompt", type=int, nargs="+", required=True)
    args = parser.parse_args()
    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(args.folder).eval()
    config, lock = model.config, threading.Lock()
    side = config.vision_config.image_size
    places = (side // config.vision_config.patch_size) ** 2
    ids = torch.tensor([[config.image_token_id] * places + args.prompt])
    unwanted = list(range(config.image_token_id, config.text_config.vocab_size))

    def caption(encoded: bytes) -> list[int]:
        image = Image.open(io.BytesIO(encoded)).convert("RGB").resize((side, side), Image.BILINEAR)
        pixels = torch.from_numpy(np.asarray(image, np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with lock, torch.inference_mode():
            out = model.generate(
                input_ids=ids,
                pixel_values=pixels,
                attention_mask=torch.ones_like(ids),
                token_type_ids=torch.zeros_like(ids),
                do_sample=False,
                max_new_tokens=args.tokens,
                suppress_tokens=unwanted or None,
            )
        return out[0, ids.shape[1] :].tolist()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # a body that follows its head would wait for 40 ms

        def do_GET(self) -> None:
            self.answer(b"ready")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            begin = body.index(b"\r\n\r\n", body.index(b"filename")) + 4
            self.answer(json.dumps(caption(body[begin:])).encode())

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", args.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
