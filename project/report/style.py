"""CSS of the report. In light and dark, the contrast is at least 4.5 for text and 3 for lines (WCAG 2.2, AA)."""

STYLE = """
:root { --ink: #1b1d21; --paper: #ffffff; --muted: #565b63; --grid: #d3d7dc; --box: #f4f5f7; --warn: #9a3b00;
  --series0: #0b61a4; --series1: #b54708; --series2: #00785a; --series3: #8e3b87; --series4: #6b6000;
  --series5: #56606b }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --ink: #e6e8eb; --paper: #15171b; --muted: #a9b0ba; --grid: #3b4049; --box: #1f2228;
    --warn: #ffb37a; --series0: #6db8f2; --series1: #ff9d5c; --series2: #4fd1a5; --series3: #e59be0; --series4: #d6cb5a;
    --series5: #b7c0cb } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1240px; padding: 0 12px 48px; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 24px 0 8px }
h2 { font-size: 1.25rem; margin: 40px 0 8px; padding-top: 8px; border-top: 1px solid var(--grid) }
h3 { font-size: 1rem; margin: 16px 0 4px }
a { color: var(--series0) }
nav ul, .legend { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 2px 16px }
nav a { display: inline-block; padding: 4px 0 }
.outcome { display: flex; flex-wrap: wrap; gap: 12px; margin: 12px 0 }
.outcome div { flex: 1 1 150px; background: var(--box); padding: 10px 12px; border-radius: 6px }
.outcome dt, .outcome dd + dd { color: var(--muted); font-size: .8125rem; font-weight: 400 }
.outcome dd { margin: 0; font-size: 1.5rem; font-weight: 600; line-height: 1.3 }
.note { color: var(--muted) }
.warning { color: var(--warn); font-weight: 600 }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 16px }
.pictures, .tables { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 16px 32px }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 24px }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(110px, 1fr)); gap: 12px }
.sides > div, .grid > * { min-width: 0 }
.tables > * { max-width: 100% }
figure { margin: 8px 0; max-width: 100% }
.grid > figure { max-width: 460px }
figcaption { font-weight: 600; font-size: .9375rem }
.picture figcaption, .numbers > figcaption { font-weight: 400; color: var(--muted); font-size: .875rem; padding: 4px 0 }
.legend { font-size: .8125rem }
.legend svg { width: 30px; height: 12px; margin-right: 6px; stroke: var(--key); stroke-width: 2; fill: var(--key) }
.legend path[d="M0 6h30"] { fill: none }
svg.chart { display: block; width: 100%; height: auto }
svg.chart * { stroke-linejoin: round }
.scroll { overflow-x: auto; max-width: 100% }
.scroll:focus-visible, a:focus-visible, summary:focus-visible { outline: 3px solid var(--series1); outline-offset: 2px }
img { display: block; background: #fff; max-width: 100%; height: auto }
.gallery img { width: 100% }
img.enlarged { image-rendering: pixelated }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums }
th, td { padding: 3px 10px 3px 6px; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper) }
th:first-child { white-space: normal; min-width: 6.5em }
thead th { vertical-align: bottom }
.upright th:not(:first-child) { writing-mode: sideways-lr; text-align: left }
table.words td, table.text td, table.text th { text-align: left }
table.text td { white-space: normal; min-width: 8em }
table.text th { vertical-align: top; min-width: 9em }
.bar { background: linear-gradient(color-mix(in srgb, var(--series0) 30%, var(--paper)) 0 0) 0 / var(--share) 100%
  no-repeat }
.matrix td { background: color-mix(in srgb, var(--series0) calc(var(--share) / 2), var(--paper)); text-align: center }
.matrix td, .matrix th { padding: 3px 6px }
@media screen and (max-width: 600px) {
  table { font-size: .75rem }
  th, td { padding: 3px 5px 3px 3px }
  .matrix { font-size: .6875rem }
  .matrix td, .matrix th { padding: 3px 2px } }
.bar, .matrix td { print-color-adjust: exact; -webkit-print-color-adjust: exact }
details { margin: 4px 0 }
summary { cursor: pointer; color: var(--muted); padding: 4px 0 }
pre { background: var(--box); padding: 12px; overflow-x: auto; font-size: .8125rem; margin: 0 }
code { background: var(--box); padding: 0 3px; font-size: .9em }
@media print {
  body { max-width: none; font-size: 11pt }
  nav, details { display: none }
  .grid { grid-template-columns: 1fr 1fr }
  figure, tr, .outcome { break-inside: avoid }
  h2, h3, .numbers > figcaption { break-after: avoid }
  .scroll { overflow: visible }
  .pictures img { max-height: 22cm; width: auto } }
"""
