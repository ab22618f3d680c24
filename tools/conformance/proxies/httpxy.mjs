import http from 'node:http'
import { createProxyServer } from 'httpxy'

const proxy = createProxyServer({ target: 'http://127.0.0.1:8000', ws: true, xfwd: true })
const server = http.createServer((request, response) => {
  proxy.web(request, response).catch(() => response.destroy())
})
server.on('upgrade', (request, socket, head) => {
  proxy.ws(request, socket, {}, head).catch(() => socket.destroy())
})
server.listen(8080, '0.0.0.0')
