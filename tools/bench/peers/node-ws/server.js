// Node's `ws` with its optional native part, bufferutil. Compression is off, as its README asks for and as is default.
import { WebSocketServer } from 'ws'

const [mode, port] = process.argv.slice(2)
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(port), perMessageDeflate: false, backlog: 1024 })

server.on('connection', (socket) => {
  socket.on('error', () => {}) // a reset is how the load's clients leave
  if (mode === 'echo') {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  } else {
    // "Server broadcast" of its README.
    socket.on('message', (data, isBinary) => {
      for (const client of server.clients) client.send(data, { binary: isBinary })
    })
  }
})
