"""Holds the style sheet of `cmap.watch.report`, for light and dark rooms, screens and paper."""

from __future__ import annotations

STYLE = """
:root { --paper: #fbfbf9; --ink: #1d2326; --quiet: #6b7377; --rule: #e3e5e2; --card: #fff;
  --good: #2f9e8f; --good2: #48b3a4; --bad: #cf3f55; --lost: #e39b23; --gone: #a9b0b3; --now: #4b7fd1;
  color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #15191b; --ink: #e4e8e8; --quiet: #8d979b; --rule: #2a3134;
  --card: #1c2124; --good: #2a9183; --good2: #37a596; --bad: #e5586d; --lost: #e0a13a; --gone: #5c666a;
  --now: #6c9be6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 1280px; margin: 0 auto; padding: 40px 32px 64px; }
header { display: flex; align-items: baseline; gap: 20px; justify-content: space-between; }
h1 { font-size: 26px; font-weight: 650; letter-spacing: -.01em; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 17px; font-weight: 650; margin: 0 0 10px; }
section { margin-top: 40px; }
.state { margin: 0; white-space: nowrap; }
.state b { font-weight: 600; padding: 4px 12px; border-radius: 99px; color: #fff; background: var(--good); }
.state b.failed { background: var(--bad); } .state b.running { background: var(--now); }
.about { margin: 16px 0 0; display: grid; gap: 2px; font-size: 13.5px; }
.about div { display: grid; grid-template-columns: 76px minmax(0, 1fr); gap: 12px; }
.about dd { font: inherit; white-space: normal; overflow-wrap: anywhere; }
.about .command { font: 12.5px/1.6 ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 24px 0 16px; }
.figures div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 16px; }
dt { color: var(--quiet); font-size: 13px; }
dd { margin: 0; }
.figures dd { font-size: 24px; font-weight: 600; letter-spacing: -.01em; line-height: 1.3; white-space: nowrap; }
dd small { display: block; font-size: 12px; font-weight: 400; color: var(--quiet); letter-spacing: 0;
  white-space: normal; }
.bad dd, .bad a { color: var(--bad); } .bad a { text-decoration: none; }
.bad a:hover { text-decoration: underline; }
.progress { display: flex; height: 10px; border-radius: 5px; overflow: hidden; background: var(--rule); }
i.succeeded { background: var(--good); } i.failed { background: var(--bad); } i.lost { background: var(--lost); }
i.cancelled { background: var(--gone); } i.running { background: var(--now); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 12px; color: var(--quiet); font-size: 13px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
.lines { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 8px 16px 12px; }
.line { display: grid; grid-template-columns: 220px minmax(0, 1fr) 92px; gap: 14px;
  align-items: center; padding: 2px 0; border-top: 1px solid var(--rule); }
.line.axis { border: 0; position: sticky; top: 0; background: var(--card); z-index: 1; height: 28px; }
.ticks { position: relative; height: 18px; color: var(--quiet); font-size: 12px; }
.ticks i { position: absolute; font-style: normal; white-space: nowrap; padding-left: 5px;
  border-left: 1px solid var(--gone); line-height: 18px; }
.name { font-size: 12.5px; line-height: 1.25; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.count { font-size: 12px; line-height: 1.25; color: var(--quiet); text-align: right; white-space: nowrap; }
.count b { font-weight: 600; color: var(--bad); margin-left: 4px; }
svg { display: block; width: 100%; background: color-mix(in srgb, var(--rule) 45%, transparent); border-radius: 2px; }
rect.succeeded.s0 { fill: var(--good); } rect.succeeded.s1 { fill: var(--good2); }
rect.failed { fill: var(--bad); } rect.lost { fill: var(--lost); } rect.cancelled { fill: var(--gone); }
rect.running { fill: var(--now); opacity: .75; } rect:hover { opacity: .6; }
table { width: 100%; border-collapse: collapse; font-size: 13.5px; }
th { font-weight: 500; color: var(--quiet); } th, td { padding: 5px 10px; text-align: right; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tbody tr { border-top: 1px solid var(--rule); } tbody tr:hover { background: var(--card); }
td { overflow-wrap: anywhere; } td:not(:first-child) { white-space: nowrap; }
.scroll { overflow-x: auto; } .scroll td:first-child { min-width: 150px; }
.failures th, .failures td { text-align: left; vertical-align: top; white-space: normal; overflow-wrap: anywhere; }
.failures td.why { color: var(--bad); } .failures td.right { white-space: nowrap; }
.words td { padding: 0 0 8px; } .words, .words:hover { border: 0; background: none; }
tbody tr.words { border-top: 0; }
pre { margin: 0; padding: 8px 12px; border-left: 3px solid var(--bad); background: var(--card); overflow: auto;
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 240px;
  font: 12px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
.none { color: var(--quiet); margin: 8px 0; font-size: 13.5px; }
@media (max-width: 640px) { main { padding: 20px 14px; } section { margin-top: 28px; }
  header { flex-wrap: wrap; gap: 8px; } h1 { font-size: 22px; }
  .figures { grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 8px; }
  .line { grid-template-columns: 72px minmax(0, 1fr) 60px; gap: 8px; }
  .ticks i:not(:nth-child(3n + 1)) { display: none; }
  .count { white-space: normal; } .lines { padding: 6px 10px 10px; }
  .failures, .failures tbody, .failures tr, .failures td { display: block; } .failures thead { display: none; }
  .failures tr { padding: 8px 0; } .failures tr.words { padding: 0 0 8px; }
  .failures td { display: grid; grid-template-columns: 76px minmax(0, 1fr); gap: 12px; padding: 1px 0; }
  .failures td::before { content: attr(data-name); color: var(--quiet); }
  .failures td:empty, .words td::before { display: none; } .words td { display: block; } }
@media print { .line.axis { position: static; } body { background: #fff; } }
"""
