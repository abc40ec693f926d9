// Pictures drawn here and now, and things to ask, for a first try.

const SIZE = 336; // one tile of a Llama 4
const RED = '#d63a2f';
const BLUE = '#2b62c9';
const GREEN = '#2e9448';
const ORANGE = '#f08a24';
const PAPER = '#ffffff';

/** {label, pictures: [{name, url}]}; drawn once, when the page starts. */
export const samples = [
  { label: 'A red circle left of a blue square', pictures: [draw('circle-and-square', shapes)] },
  { label: 'Three green triangles', pictures: [draw('triangles', triangles)] },
  { label: 'A digit by hand', pictures: [draw('digit', seven)] },
  {
    label: 'Two pictures to compare',
    pictures: [draw('circle', orangeCircle), draw('star', orangeStar)],
  },
];

const GET_WEATHER = {
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Get the current weather in a city.',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string', description: 'Name of the city' } },
      required: ['city'],
    },
  },
};
const CAPITAL_SCHEMA = {
  type: 'object',
  properties: { country: { type: 'string' }, capital: { type: 'string' } },
  required: ['country', 'capital'],
  additionalProperties: false,
};

export const exampleTools = JSON.stringify([GET_WEATHER], null, 2);
export const exampleSchema = JSON.stringify(CAPITAL_SCHEMA, null, 2);

/** {text}, a shorter label for it, and what else belongs to it: `sample`, `tools`, `format`, `schema`. */
export const prompts = [
  { text: 'Hello, who are you?' },
  { text: 'What is 17 + 25?' },
  { text: 'What is the capital of Peru?' },
  { text: 'What is in the picture?', sample: samples[0], icon: 'picture' },
  { text: 'What is the weather in Lima?', tools: exampleTools, icon: 'tool' },
  {
    label: 'The capital of Norway, in JSON',
    text: 'What is the capital of Norway? Answer as JSON with the keys "country" and "capital".',
    format: 'json_schema',
    schema: exampleSchema,
    icon: 'braces',
  },
];

function draw(name, paint) {
  const canvas = document.createElement('canvas');
  canvas.width = SIZE;
  canvas.height = SIZE;
  const context = canvas.getContext('2d');
  context.fillStyle = PAPER;
  context.fillRect(0, 0, SIZE, SIZE);
  paint(context);
  return { name: `${name}.png`, url: canvas.toDataURL('image/png') };
}

function shapes(context) {
  context.fillStyle = RED;
  context.beginPath();
  context.arc(94, 168, 58, 0, 2 * Math.PI);
  context.fill();
  context.fillStyle = BLUE;
  context.fillRect(186, 112, 112, 112);
}

function triangles(context) {
  context.fillStyle = GREEN;
  polygon(context, [[92, 40], [156, 150], [28, 150]]);
  polygon(context, [[238, 66], [308, 184], [168, 184]]);
  polygon(context, [[136, 190], [204, 304], [68, 304]]);
}

function seven(context) {
  context.strokeStyle = '#1c2330';
  context.lineWidth = 17;
  context.lineCap = 'round';
  context.lineJoin = 'round';
  context.beginPath();
  context.moveTo(88, 92);
  context.bezierCurveTo(130, 76, 196, 92, 246, 78);
  context.bezierCurveTo(212, 138, 164, 188, 148, 272);
  context.moveTo(122, 178);
  context.quadraticCurveTo(168, 166, 220, 172);
  context.stroke();
}

function orangeCircle(context) {
  context.fillStyle = ORANGE;
  context.beginPath();
  context.arc(168, 168, 90, 0, 2 * Math.PI);
  context.fill();
}

function orangeStar(context) {
  context.fillStyle = ORANGE;
  const corners = [];
  for (let i = 0; i < 10; i++) {
    const length = i % 2 ? 48 : 114;
    const angle = -Math.PI / 2 + (i * Math.PI) / 5;
    corners.push([168 + length * Math.cos(angle), 168 + length * Math.sin(angle)]);
  }
  polygon(context, corners);
}

function polygon(context, points) {
  context.beginPath();
  for (const [x, y] of points) context.lineTo(x, y);
  context.fill();
}
