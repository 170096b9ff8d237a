// Figures: plotly's, with colours named by style-sheet variables so that they follow the theme.

const PRINT_WIDTH = 620;

/** A copy of a figure with every "var(--name)" replaced by the colour it now stands for. */
function withColours(value, style) {
  if (typeof value === "string") {
    const name = /^var\((--[\w-]+)\)$/.exec(value);
    return name ? style.getPropertyValue(name[1]).trim() : value;
  }
  if (Array.isArray(value)) return value.map((item) => withColours(item, style));
  if (value && typeof value === "object") {
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key, withColours(item, style)]),
    );
  }
  return value;
}

class Figures {
  /** `opened(problem, precision)` is called when a reader picks a mark that stands for them. */
  constructor(figures, opened) {
    this.figures = figures;
    this.opened = opened;
    this.drawn = new Set();
  }

  draw(width = null) {
    const style = getComputedStyle(document.documentElement);
    for (const [name, figure] of Object.entries(this.figures)) {
      const node = document.getElementById(`figure-${name}`);
      if (!node) continue;
      const { data, layout } = withColours(figure, style);
      if (width !== null) Object.assign(layout, { width, autosize: false });
      const config = { responsive: width === null, displayModeBar: false, showTips: false };
      Plotly.react(node, data, layout, config);
      if (!this.drawn.has(name)) this.listen(node);
      this.drawn.add(name);
    }
  }

  print(printing) {
    this.draw(printing ? PRINT_WIDTH : null);
  }

  listen(node) {
    node.on("plotly_click", ({ points: [point] }) => {
      const { meta } = point.data;
      if (!meta) return;
      // A heat map's marks are counted by row and column; its columns are the problems.
      const { pointNumber } = point;
      const mark = Array.isArray(pointNumber) ? pointNumber[1] : pointNumber;
      this.opened(meta.problems[mark], meta.precision);
    });
  }
}
