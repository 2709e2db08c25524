"""The page of `unic report` in a real browser: what people click, type and see, without any network."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from unic.tools.report.page import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SETS = ("digits", "dtd", "flowers")
LONG = "long" * 75
VALUES = {
    "dino": (90.0, 60.0, 80.0), "ibot": (88.0, 64.0, 79.0), "student": (91.0, 63.0, 82.0),
    "<b>student</b>": (10.0, 20.0, 30.0), "student untrained": (30.0, 20.0, 25.0), LONG: (50.0,),
}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("needs a browser: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("needs playwright: pip install playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with curves and alarms, and results of six encoders on three data sets."""
    folder = tmp_path_factory.mktemp("report")
    results = [
        {"model": model, "dataset": name, "evaluation": "knn", "metric": "top1", "value": value}
        for model, values in VALUES.items()
        for name, value in zip(SETS, values, strict=False)
    ]
    runs = [folder / "student", folder / "</script><script>alert(1)<"]
    for number, run in enumerate(runs):
        run.mkdir(parents=True)
        config = {"teachers": ["dino", "ibot"], "optim": {"lr": 0.001 * (1 + number), "epochs": 4}}
        (run / "config.json").write_text(json.dumps(config))
        metrics = [
            {
                "step": step, "loss": 100 / step, "loss/dino/cls": 90 / step, "loss/ibot/cls": 80 / step,
                "lr": 1e-3, "kept/dino": 0.75, "kept/ibot": math.nan if step == 30 else 0.5,
            }
            for step in range(10, 410, 10)
        ]  # fmt: skip
        (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in metrics))
    alarm = {"step": 20, "alarm": "collapse", "message": f"the rank of <i>cls</i> fell to 2 {LONG}"}
    (runs[0] / "alarms.jsonl").write_text(json.dumps(alarm) + "\n")
    (runs[0] / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in results))
    return write_report(runs, folder / "out")


@pytest.fixture
def opened(browser, report: Path) -> Iterator:
    """Opens the page as a function of the settings of a browser; checks that it was quiet and asked for nothing."""
    contexts, messages, addresses = [], [], []

    def open_page(**settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: messages.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: addresses.append(request.url))
        page.goto(report.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert messages == []
    assert {address for address in addresses if not address.startswith("data:")} == {report.as_uri()}


def names(page) -> list[str]:
    return (
        page.locator("table")
        .first.locator("tbody th .name")
        .evaluate_all("cells => cells.map(cell => cell.firstChild.textContent)")
    )


def chart(page, title: str):
    figure = page.locator(f"figure.chart:has(figcaption:has-text('{title}'))").first
    figure.scroll_into_view_if_needed()
    figure.locator(".plot > svg").wait_for()
    return figure


def test_a_click_on_a_header_brings_the_best_to_the_top_the_next_the_worst_the_third_all_as_it_was(opened):
    page = opened()
    before = names(page)
    header = page.locator("thead th", has_text="dtd").first
    header.locator("button").click()
    assert names(page) == ["ibot", "student", "dino", "<b>student</b>", "student untrained", LONG]
    assert header.get_attribute("aria-sort") == "descending"
    header.locator("button").click()
    assert names(page)[0] in ("<b>student</b>", "student untrained")
    assert names(page)[-2:] == ["ibot", LONG]  # what was not measured is never the best nor the worst
    assert header.get_attribute("aria-sort") == "ascending"
    header.locator("button").click()
    assert names(page) == before
    assert header.get_attribute("aria-sort") == "none"


def test_tables_are_sorted_by_keys_alone(opened):
    page = opened()
    page.locator("thead th button").first.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").startswith("digits")
    page.keyboard.press("Enter")
    assert names(page)[0] == "student"
    page.keyboard.press("Space")
    assert names(page)[0] == "<b>student</b>"


def test_a_button_of_the_legend_hides_its_curve_and_shows_it_again(opened):
    page = opened()
    figure = chart(page, "Loss")
    button = figure.locator(".legend button").first
    count = figure.locator("path.line").count()
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert figure.locator("path.line").count() == count - 1
    button.click()
    assert figure.locator("path.line").count() == count


def test_the_radar_has_an_axis_for_each_evaluation_and_hides_the_untrained_until_asked(opened):
    figure = chart(opened(), "Per cent of the best teacher")
    assert [text for text in figure.locator(".plot text.strong").all_text_contents()] == [
        f"{name}{name} knn top1" for name in SETS
    ]
    untrained = figure.locator(".legend button", has_text="untrained")
    assert untrained.get_attribute("aria-pressed") == "false"
    count = figure.locator("path.line").count()
    untrained.click()
    assert figure.locator("path.line").count() == count + 1


def test_values_are_read_out_under_the_mouse(opened):
    page = opened()
    figure = chart(page, "Loss")
    box = figure.locator(".plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = figure.locator(".tip")
    step = int(tip.locator("b").text_content().removeprefix("step "))
    assert 150 < step < 250
    value = float(tip.locator("tr").first.locator("td").nth(2).text_content())
    assert value == pytest.approx(100 / step, rel=1e-3)
    page.mouse.move(2, 2)
    assert tip.count() == 0


def test_the_step_nearest_to_the_mouse_is_read_out(opened):
    page = opened()
    figure = chart(page, "Loss")
    box = figure.locator(".plot").bounding_box()
    ticks = figure.locator(".plot text").evaluate_all(
        "all => all.map(t => [t.textContent, t.getBoundingClientRect().x + t.getBoundingClientRect().width / 2])"
    )
    at = {int(text): x for text, x in ticks if text in ("100", "300")}
    for step in (10, 20, 100, 190, 250, 390, 400):
        x = at[100] + (step - 100) * (at[300] - at[100]) / 200
        page.mouse.move(x, box["y"] + 50)
        assert figure.locator(".tip b").text_content() == f"step {step}"


def test_values_are_read_out_by_arrow_keys_and_told_to_a_screen_reader(opened):
    page = opened()
    figure = chart(page, "Loss")
    figure.locator(".plot").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert figure.locator(".tip b").text_content() == "step 20"
    assert "step 20: student 5" in figure.locator("[aria-live]").text_content()
    page.keyboard.press("End")
    assert figure.locator(".tip b").text_content() == "step 400"
    page.keyboard.press("Escape")
    assert figure.locator(".tip").count() == 0


def test_a_touch_reads_values_out(opened):
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    figure = chart(page, "Per cent of the best teacher")
    plot = figure.locator(".plot")
    box = plot.bounding_box()
    plot.tap(position={"x": box["width"] / 2, "y": box["height"] * 0.3})
    assert figure.locator(".tip b").text_content() == "digits knn top1"
    # 91.0 of 90.0, the best teacher.
    assert "101.1" in figure.locator(".tip tr", has_text="student").first.text_content()


def test_the_logarithmic_scale_can_be_switched(opened):
    figure = chart(opened(), "Loss")
    button = figure.locator(".tools button", has_text="log scale")
    assert button.get_attribute("aria-pressed") == "true"  # the loss falls from 10 to 0.25
    before = figure.locator("path.line").first.get_attribute("d")
    button.click()
    assert figure.locator("path.line").first.get_attribute("d") != before


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_itself_never_scrolls_sideways(opened, width):
    page = opened(viewport={"width": width, "height": 844})
    page.locator("details").evaluate_all("all => all.forEach(details => details.open = true)")
    for figure in page.locator("figure.chart").all():
        figure.scroll_into_view_if_needed()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_colours_follow_the_system_and_the_button_turns_them_round(opened):
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = opened(), opened(color_scheme="dark")
    assert light.evaluate(ground) == "rgb(255, 255, 255)"
    assert dark.evaluate(ground) == "rgb(20, 23, 26)"
    dark.locator("#scheme").click()
    assert dark.evaluate(ground) == "rgb(255, 255, 255)"
    assert "dark" in dark.locator("#scheme").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground_as_wcag_asks(opened, scheme):
    page = opened(color_scheme=scheme)
    ground = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    for name in ("--text", "--quiet", "--accent", "--warn", "--good"):
        script = f"(document.body.style.color = 'var({name})', getComputedStyle(document.body).color)"
        assert contrast(luminance(page.evaluate(script)), ground) >= 4.5, name


def test_what_names_say_is_text_and_never_markup(opened):
    page = opened()
    assert page.locator("body script").count() == 2  # the data and page.js
    assert page.locator("main i").count() == 0 and page.locator("td b, th b").count() == 0
    assert "the rank of <i>cls</i> fell to 2" in page.locator(".alarms").first.text_content()


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)", WCAG 2.2."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)
