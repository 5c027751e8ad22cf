"""The playground's page: Gradio components, and the HTML in them."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "0"  # read when gradio is imported

import gradio as gr
from markupsafe import Markup

from compare.duet import NAMES, Duet, NextToken, Voice
from gpt_core import bidi
from gpt_core.errors import InputError
from gpt_core.sampling import Sampling

CSS = (Path(__file__).parent / "templates" / "playground.css").read_text(encoding="utf-8")
EXAMPLES = ["واش راك", "اليوم نضت بكري و", "cette année راني حاب", "يا خويا علاش"]
LIMITS = {"max_tokens": 400, "top_k": 200}


def build(duet: Duet, title: str) -> gr.Blocks:
    """The page for one checkpoint."""

    def settings(temperature: float, top_k: float, top_p: float) -> Sampling:
        try:
            return Sampling(float(temperature), int(top_k) or None, float(top_p))
        except InputError as error:
            raise gr.Error(str(error)) from error

    def foresee(prompt: str, temperature: float, top_k: float, top_p: float) -> str:
        return next_tokens_table(duet.next_tokens(prompt, settings(temperature, top_k, top_p)))

    def write(
        prompt: str, temperature: float, top_k: float, top_p: float, max_tokens: float, seed: float
    ) -> Iterator[tuple[str, str, str]]:
        count = min(max(1, int(max_tokens)), LIMITS["max_tokens"])
        for voices in duet.write(prompt, settings(temperature, top_k, top_p), count, max(0, int(seed))):
            yield voice_block(voices[0], prompt), voice_block(voices[1], prompt), agreement(*voices)

    with gr.Blocks(title="Darija GPT: both twins", analytics_enabled=False) as page:
        gr.HTML(Markup("<h1>Darija GPT: both twins</h1><p>{}</p>").format(title))
        prompt = gr.Textbox(
            EXAMPLES[0], label="Beginning of a row", rtl=True, lines=2, max_lines=4, elem_id="prompt", autofocus=True
        )
        gr.Examples(EXAMPLES, prompt, label="Examples", elem_id="examples")
        with gr.Row():
            temperature = gr.Slider(0, 2, 0.8, step=0.05, label="Temperature", info="0: the likeliest")
            top_k = gr.Slider(0, LIMITS["top_k"], 50, step=1, label="Top-k", info="0: all")
            top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top-p", info="1: all")
            max_tokens = gr.Slider(1, LIMITS["max_tokens"], 60, step=1, label="Length", info="tokens")
            seed = gr.Number(1, label="Seed", info="same seed, same text", precision=0, minimum=0)
        with gr.Row():
            start = gr.Button("Continue", variant="primary", elem_id="start")
            stop = gr.Button("Stop", elem_id="stop")
        verdict = gr.HTML(elem_id="verdict")
        with gr.Row():
            texts = []
            for name in NAMES:
                with gr.Column():
                    gr.HTML(Markup("<h2>{}</h2>").format(name))
                    texts.append(gr.HTML(elem_id=f"text-{name.lower()}"))
        gr.HTML("<h2>What may come next</h2><p>After the text in the box, with the controls as they are set.</p>")
        table = gr.HTML(elem_id="next")

        controls = [prompt, temperature, top_k, top_p]
        running = gr.on([start.click, prompt.submit], write, [*controls, max_tokens, seed], [*texts, verdict])
        stop.click(None, cancels=[running])
        gr.on(
            [page.load, prompt.change, temperature.change, top_k.change, top_p.change], foresee, controls, table,
            trigger_mode="always_last", show_progress="hidden",
        )  # fmt: skip
    return page


def voice_block(voice: Voice, prompt: str) -> str:
    """A continuation with its speed."""
    state = "" if voice.done else ", writing"
    figures = f"{len(voice.ids)} tokens, {voice.tokens_per_s:.0f} tok/s{state}"
    return Markup("{}<p class='figures'>{}</p>").format(bidi.block(voice.text, prompt), figures)


def agreement(torch: Voice, mlx: Voice) -> str:
    """Whether both have written the same so far."""
    if torch.ids == mlx.ids:
        return Markup("<p class='same'>the same {} tokens</p>").format(len(torch.ids))
    pairs = zip(torch.ids, mlx.ids, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(torch.ids), len(mlx.ids)))
    return Markup("<p class='differ'>different from token {} on</p>").format(first + 1)


def next_tokens_table(tokens: list[NextToken]) -> str:
    """The likeliest next tokens with a bar for each twin's probability."""
    row = Markup(
        "<tr><td class='token'><bdi>{}</bdi></td><td><i style='width:{:.1f}%'></i>{:.2f} %</td>"
        "<td><i style='width:{:.1f}%'></i>{:.2f} %</td></tr>"
    )
    rows = [row.format(t.text, *(x for p in t.probabilities for x in (100 * p, 100 * p))) for t in tokens]
    head = Markup("<tr><th>token</th><th>{}</th><th>{}</th></tr>").format(*NAMES)
    return Markup("<div class='scroll'><table class='next'>{}{}</table></div>").format(head, Markup().join(rows))
