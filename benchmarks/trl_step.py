"""The peer of self_critical_step.py: trl's GRPO on Hugging Face's PaliGemma, a step when asked.

Run by self_critical_step.py in an environment that has trl, with a folder that holds the model and
images. Each line of standard input asks for a step, and is answered by the seconds that it took.
The reward is minus the length of the text, which costs nothing.
"""

import sys
import time
from pathlib import Path

_TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def main() -> None:
    folder, batch, captions, tokens, steps = sys.argv[1], *map(int, sys.argv[2:])
    import datasets
    import transformers
    import trl
    from PIL import Image

    processor = transformers.AutoProcessor.from_pretrained(f"{folder}/model")
    processor.chat_template = _TEMPLATE
    model = transformers.PaliGemmaForConditionalGeneration.from_pretrained(f"{folder}/model")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("language_model" in name and "self_attn" in name)
    prompt = [{"role": "user", "content": "caption en"}]
    images = [Image.open(path) for path in sorted(Path(folder, "Images").iterdir())]
    rows = [{"prompt": prompt, "image": image} for image in images]

    class Asked(transformers.TrainerCallback):
        """Waits for a line before each step, and answers after it."""

        began = 0.0

        def on_step_begin(self, *_, **__):
            if not sys.stdin.readline():
                raise SystemExit
            self.began = time.perf_counter()

        def on_step_end(self, *_, **__):
            print(time.perf_counter() - self.began, flush=True)

    settings = trl.GRPOConfig(
        output_dir=f"{folder}/trl",
        per_device_train_batch_size=batch * captions,
        num_generations=captions,
        max_completion_length=tokens,
        max_steps=steps,
        learning_rate=1e-9,  # completions that grow shorter would make later steps cheaper
        beta=0.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [-float(len(str(each))) for each in completions],
        args=settings,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=processor,
        callbacks=[Asked()],
    )
    print("ready", flush=True)
    trainer.train()


if __name__ == "__main__":
    main()
