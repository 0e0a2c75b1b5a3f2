"""The peer of train_speed.py: Hugging Face's PaliGemma, which makes one training step when asked.

Run by train_speed.py in an environment that has torch and transformers, with a folder that holds
the model and the batches "check" and "single". Lines of standard input name a batch; each is
answered by the seconds its step took. After "check" the folder has the changed model too.

If the folder holds an adapter, that is what trains, by peft, and what is written. So it is the peer
of adapters_vs_peft.py too.
"""

import sys
import time
from pathlib import Path

import numpy as np

RATE = 0.03
CHECK_RATE = 100.0  # so large that rounding the parameters does not blur how they change
ADAPTER_CHECK_RATE = 1.0


def main() -> None:
    folder = sys.argv[1]
    import torch
    import transformers

    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(f"{folder}/model")
    model.train()
    adapted = Path(folder, "adapter").is_dir()
    if adapted:
        import peft

        model = peft.PeftModel.from_pretrained(model, f"{folder}/adapter", is_trainable=True)
    for name, parameter in model.named_parameters():
        if not adapted:
            parameter.requires_grad_("language_model" in name and "self_attn" in name)
    trained = [each for each in model.parameters() if each.requires_grad]

    def step(name: str, rate: float) -> float:
        """Returns the seconds it took."""
        with np.load(f"{folder}/{name}.npz") as batch:
            text, segment = (torch.from_numpy(batch[key]).long() for key in ("text", "segment"))
            image = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).contiguous()
        segment = torch.nn.functional.pad(segment, (256, 0))
        positions = torch.full((len(text), 256), model.config.image_token_id)
        ids = torch.cat([positions, text], dim=1)
        optimizer = torch.optim.SGD(trained, rate)
        start = time.perf_counter()
        optimizer.zero_grad()
        result = model(
            input_ids=ids,
            pixel_values=image,
            attention_mask=(segment >= 0).long(),
            token_type_ids=(segment > 0).long(),
            labels=torch.where(segment > 0, ids, -100),
        )
        result.loss.backward()
        optimizer.step()
        return time.perf_counter() - start

    print("ready", flush=True)
    for name in sys.stdin:
        if name == "check\n":
            before = [parameter.detach().clone() for parameter in trained]
            seconds = step("check", ADAPTER_CHECK_RATE if adapted else CHECK_RATE)
            model.save_pretrained(f"{folder}/changed")
            for parameter, value in zip(trained, before, strict=True):
                parameter.data.copy_(value)
        else:
            seconds = step("single", RATE)
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
